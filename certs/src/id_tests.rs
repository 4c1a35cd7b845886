use proptest::prelude::*;

use super::*;
use crate::testing::{id, td};

#[test]
fn accepts_what_spiffe_id_2_allows() {
    let accepted = [
        ("spiffe://td", "td", ""),
        ("spiffe://td/path", "td", "/path"),
        ("spiffe://td/.path", "td", "/.path"),
        ("spiffe://td/..path", "td", "/..path"),
        ("spiffe://td/...", "td", "/..."),
        ("spiffe://td/p.a_t-H0/x", "td", "/p.a_t-H0/x"),
        ("spiffe://a.b-c_d9/p", "a.b-c_d9", "/p"),
        ("spiffe://1.2.3.4/p", "1.2.3.4", "/p"),
        ("spiffe://a..b/p", "a..b", "/p"),
        ("spiffe://-x/p", "-x", "/p"),
    ];
    for (text, name, path) in accepted {
        let id = SpiffeId::parse(text).unwrap_or_else(|e| panic!("{text} should be accepted: {e}"));
        assert_eq!(
            (id.trust_domain().as_str(), id.path(), id.as_str()),
            (name, path, text)
        );
    }
}

#[test]
fn rejects_what_spiffe_id_2_forbids() {
    let rejected = [
        "",
        "s",
        "spiffe:/",
        "spiffe:/td",
        "Spiffe://td",
        "SPIFFE://td",
        "spiffe://",
        "spiffe:///path",
        "spiffe://Td/p",
        "http://td/p",
        " spiffe://td",
        "spiffe://td ",
        "spiffe://td/",
        "spiffe://td/p/",
        "spiffe://td//",
        "spiffe://td//p",
        "spiffe://td/.",
        "spiffe://td/..",
        "spiffe://td/./p",
        "spiffe://td/../p",
        "spiffe://td/p/..",
        "spiffe://td/p/./o",
        "spiffe://td/%62",
        "spiffe://td/p$",
        "spiffe://td?q",
        "spiffe://td#f",
        "spiffe://td/p?q",
        "spiffe://td/p#f",
        "spiffe://%62%61",
        "spiffe://td:80",
        "spiffe://td:80/p",
        "spiffe://u@td",
        "spiffe://td$",
        "spiffe://[::1]/p",
    ];
    for text in rejected {
        assert!(
            SpiffeId::parse(text).is_err(),
            "{text:?} should be rejected"
        );
    }
}

#[test]
fn every_byte_is_allowed_or_not_by_its_position() {
    for byte in 0..=127_u8 {
        let c = char::from(byte);
        let in_name = c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        let in_path = c.is_ascii_alphanumeric() || "._-".contains(c);
        // A slash in the trust domain ends it, so it is not "in" it.
        if c != '/' {
            assert_eq!(
                SpiffeId::parse(&format!("spiffe://t{c}d/p")).is_ok(),
                in_name,
                "byte {byte} in trust domain"
            );
            assert_eq!(
                TrustDomain::parse(&format!("t{c}d")).is_ok(),
                in_name,
                "byte {byte} in bare trust domain"
            );
            assert_eq!(
                SpiffeId::parse(&format!("spiffe://td/p{c}q")).is_ok(),
                in_path,
                "byte {byte} in path"
            );
        }
    }
    for c in (128..=255_u8).map(char::from) {
        assert!(
            SpiffeId::parse(&format!("spiffe://t{c}d/p")).is_err(),
            "{c} in trust domain"
        );
        assert!(
            SpiffeId::parse(&format!("spiffe://td/p{c}")).is_err(),
            "{c} in path"
        );
    }
}

#[test]
fn lengths_end_at_2048_and_255_bytes() {
    let longest = format!("spiffe://td/{}", "a".repeat(2048 - 12));
    assert_eq!(longest.len(), 2048);
    assert!(SpiffeId::parse(&longest).is_ok());
    assert!(SpiffeId::parse(&format!("{longest}a")).is_err());
    assert!(TrustDomain::parse(&"a".repeat(255)).is_ok());
    assert!(TrustDomain::parse(&"a".repeat(256)).is_err());
    assert!(SpiffeId::parse(&format!("spiffe://{}/p", "a".repeat(256))).is_err());
}

#[test]
fn a_trust_domain_is_read_bare_or_from_an_id() {
    assert_eq!(
        td("weft.local"),
        td("spiffe://weft.local/ns/default/sa/orders")
    );
    assert_eq!(td("weft.local").id(), id("spiffe://weft.local"));
    for text in [
        "",
        "Weft.local",
        "weft.local/p",
        "https://weft.local",
        "weft.local:80",
        "spiffe://",
    ] {
        assert!(
            TrustDomain::parse(text).is_err(),
            "{text:?} should be rejected"
        );
    }
}

#[test]
fn service_ids_have_exactly_one_shape() {
    let invoices = SpiffeId::for_service(&td("weft.local"), "default", "invoices").unwrap();
    assert_eq!(
        invoices.as_str(),
        "spiffe://weft.local/ns/default/sa/invoices"
    );
    assert_eq!(invoices.service(), Some(("default", "invoices")));
    for path in [
        "",
        "/ns/default",
        "/ns/default/sa",
        "/ns/default/sa/a/b",
        "/n/default/sa/a",
        "/ns/default/sb/a",
    ] {
        assert_eq!(
            id(&format!("spiffe://weft.local{path}")).service(),
            None,
            "{path}"
        );
    }
    for (namespace, name) in [
        ("", "a"),
        ("a", ""),
        ("a/sa/b", "c"),
        ("a", "b/c"),
        ("..", "a"),
        ("ü", "a"),
    ] {
        assert!(
            SpiffeId::for_service(&td("weft.local"), namespace, name).is_err(),
            "{namespace:?} {name:?}"
        );
    }
}

#[test]
fn serde_checks_as_parse_does() {
    let text = "\"spiffe://td/p\"";
    assert_eq!(
        serde_json::to_string(&serde_json::from_str::<SpiffeId>(text).unwrap()).unwrap(),
        text
    );
    assert!(serde_json::from_str::<SpiffeId>("\"spiffe://TD/p\"").is_err());
    assert!(
        serde_json::from_str::<SpiffeId>("\"spiffe:\\/\\/td\\/p\"").is_ok(),
        "escapes are JSON's business"
    );
    assert!(serde_json::from_str::<TrustDomain>("\"a b\"").is_err());
}

#[test]
fn errors_show_little_of_foreign_text() {
    let long = SpiffeId::parse(&"é".repeat(4000)).unwrap_err().to_string();
    assert!(long.len() < 600, "{} bytes", long.len());
}

proptest! {
    #[test]
    fn parsing_never_panics_and_keeps_what_it_accepts(text in "\\PC*") {
        if let Ok(id) = SpiffeId::parse(&text) {
            prop_assert_eq!(id.as_str(), &text);
        }
        let _ = TrustDomain::parse(&text);
    }

    #[test]
    fn legal_ids_survive_a_round_trip(
        name in "[a-z0-9._-]{1,40}",
        segments in prop::collection::vec("[a-zA-Z0-9_-][a-zA-Z0-9._-]{0,12}", 0..6),
    ) {
        let path: String = segments.iter().map(|segment| format!("/{segment}")).collect();
        let id = SpiffeId::parse(&format!("spiffe://{name}{path}")).unwrap();
        prop_assert_eq!(id.trust_domain().as_str(), name);
        prop_assert_eq!(id.path(), path);
        prop_assert_eq!(SpiffeId::parse(&id.to_string()).unwrap(), id);
    }
}
