#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;
use crate::testing::{Ca, td};

fn read(jwks: Value) -> Result<TrustBundle, Error> {
    TrustBundle::from_jwks(td("weft.local"), &jwks)
}

fn x5c() -> String {
    STANDARD.encode(&Ca::root("weft.local").der)
}

#[test]
fn a_bundle_survives_a_round_trip() {
    let roots = vec![Ca::root("weft.local").der, Ca::root("weft.local").der];
    let bundle = TrustBundle {
        trust_domain: td("weft.local"),
        sequence: u64::MAX,
        roots,
        jwt_keys: Vec::new(),
    };
    assert_eq!(read(bundle.to_jwks()).unwrap(), bundle);
    let text = serde_json::to_string(&bundle).unwrap();
    assert_eq!(serde_json::from_str::<TrustBundle>(&text).unwrap(), bundle);
    assert_eq!(
        TrustBundle::from_json(td("weft.local"), &text).unwrap(),
        bundle
    );
}

#[test]
fn an_element_has_the_members_of_its_key_type() {
    let jwks = Ca::root("weft.local").bundle("weft.local").to_jwks();
    let jwk = &jwks["keys"][0];
    assert_eq!(
        (&jwk["use"], &jwk["kty"], &jwk["crv"]),
        (&json!("x509-svid"), &json!("EC"), &json!("P-256"))
    );
    for coordinate in ["x", "y"] {
        assert_eq!(
            URL_SAFE_NO_PAD
                .decode(jwk[coordinate].as_str().unwrap())
                .unwrap()
                .len(),
            32
        );
    }
    assert!(jwk.get("kid").is_none(), "X509-SVID §6: no kid");
}

#[test]
fn unknown_elements_and_members_are_ignored() {
    let good = json!({"use": "x509-svid", "kty": "EC", "x5c": [x5c()]});
    let with = |name: &str, value: Value| {
        let mut jwk = good.clone();
        jwk[name] = value;
        jwk
    };
    let mut no_use = good.clone();
    no_use.as_object_mut().unwrap().remove("use");
    let mut no_x5c = good.clone();
    no_x5c.as_object_mut().unwrap().remove("x5c");
    let ignored = [
        ("missing use", no_use),
        ("unknown use", with("use", json!("sig"))),
        ("use is case-sensitive", with("use", json!("X509-SVID"))),
        ("use is not text", with("use", json!(1))),
        ("jwt-svid", with("use", json!("jwt-svid"))),
        ("unknown kty", with("kty", json!("XYZ"))),
        ("missing x5c", no_x5c),
        ("empty x5c", with("x5c", json!([]))),
    ];
    for (what, element) in ignored {
        let bundle =
            read(json!({"keys": [element, good]})).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(
            bundle.roots.len(),
            1,
            "{what}: only the good element counts"
        );
    }
    assert_eq!(
        read(json!({"keys": [good], "spiffe_refresh_hint": 60, "new": {}}))
            .unwrap()
            .sequence,
        0
    );
}

#[test]
fn of_several_certificates_the_first_counts() {
    let (first, second) = (x5c(), x5c());
    let bundle =
        read(json!({"keys": [{"use": "x509-svid", "kty": "EC", "x5c": [first, second]}]})).unwrap();
    assert_eq!(bundle.roots.len(), 1);
    assert_eq!(STANDARD.encode(&bundle.roots[0]), first);
}

#[test]
fn no_keys_means_that_nobody_is_trusted_and_absent_keys_are_an_error() {
    assert!(read(json!({"keys": []})).unwrap().roots.is_empty());
    assert!(read(json!({"spiffe_sequence": 1})).is_err());
}

#[test]
fn what_is_no_jwk_set_is_refused() {
    let element = |value: Value| json!({"keys": [value]});
    let refused = [
        json!([]),
        json!({"keys": {}}),
        json!({"keys": [], "spiffe_sequence": -1}),
        json!({"keys": [], "spiffe_sequence": "1"}),
        element(json!("x")),
        element(json!({"use": "x509-svid", "kty": "EC", "x5c": "text"})),
        element(json!({"use": "x509-svid", "kty": "EC", "x5c": [7]})),
        element(json!({"use": "x509-svid", "kty": "EC", "x5c": ["!"]})),
        element(json!({"use": "x509-svid", "kty": "EC", "x5c": ["AAAA"]})),
        json!({"keys": vec![json!({}); MAX_KEYS + 1]}),
    ];
    for jwks in refused {
        assert!(
            read(jwks.clone()).is_err(),
            "{:.80} should be refused",
            jwks.to_string()
        );
    }
    assert!(TrustBundle::from_json(td("weft.local"), "{").is_err());
}

#[test]
fn a_bundle_map_survives_a_round_trip_and_refuses_duplicates() {
    let (a, b) = (Ca::root("a").bundle("a"), Ca::root("b").bundle("b"));
    let set: BundleSet = [a, b].into_iter().collect();
    let text = serde_json::to_string(&set).unwrap();
    assert_eq!(serde_json::from_str::<BundleSet>(&text).unwrap(), set);
    assert_eq!(set.len(), 2);

    let error =
        serde_json::from_str::<BundleSet>(r#"{"trust_domains":{"a":{"keys":[]},"a":{"keys":[]}}}"#);
    assert!(error.unwrap_err().to_string().contains("given twice"));
    for text in [
        r#"{}"#,
        r#"{"trust_domains":{"A":{"keys":[]}}}"#,
        r#"{"trust_domains":{"a":{}}}"#,
    ] {
        assert!(serde_json::from_str::<BundleSet>(text).is_err(), "{text}");
    }
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "keys",
        "use",
        "kty",
        "x5c",
        "spiffe_sequence",
        "trust_domain",
        "other",
    ]);
    let texts = prop::sample::select(vec![
        "x509-svid",
        "EC",
        "RSA",
        "AAAA",
        "weft.local",
        "\u{0}",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        texts.prop_map(Value::from),
        "\\PC{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|members| members
                .into_iter()
                .map(|(n, v)| (n.to_owned(), v))
                .collect::<Map<_, _>>()
                .into()),
        ]
    })
}

proptest! {
    #[test]
    fn reading_never_panics_and_what_is_read_survives(value in any_json()) {
        if let Ok(bundle) = read(value.clone()) {
            prop_assert_eq!(read(bundle.to_jwks()).unwrap(), bundle);
        }
        let _ = serde_json::from_value::<TrustBundle>(value.clone());
        let _ = serde_json::from_value::<BundleSet>(json!({"trust_domains": value}));
    }

    #[test]
    fn reading_text_never_panics(text in "\\PC*") {
        let _ = TrustBundle::from_json(td("weft.local"), &text);
    }
}
