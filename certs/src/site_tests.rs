#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{id, td};

fn site(permitted: &[&str]) -> Result<Site, Error> {
    Site::new("paris", &td("weft.local"), permitted)
}

#[test]
fn a_delegate_may_vouch_for_those_on_its_list_and_for_itself() {
    let site = site(&[
        "spiffe://weft.local/ns/paris/*",
        "spiffe://weft.local/ns/default/sa/ledger",
    ])
    .unwrap();
    for good in [
        "/ns/paris/sa/orders",
        "/ns/paris/x",
        "/ns/default/sa/ledger",
        "/ns/weft-system/sa/site-paris",
    ] {
        assert!(
            site.permits(&id(&format!("spiffe://weft.local{good}"))),
            "{good}"
        );
    }
    for bad in [
        "spiffe://weft.local/ns/paris",
        "spiffe://weft.local/ns/paris-2/sa/orders",
        "spiffe://weft.local/ns/default/sa/ledger2",
        "spiffe://weft.local/ns/default/sa/ledger/x",
        "spiffe://weft.local/ns/default/sa/orders",
        "spiffe://weft.local/ns/weft-system/sa/control",
        "spiffe://weft.local/ns/weft-system/sa/site-rome",
        "spiffe://other.local/ns/paris/sa/orders",
        "spiffe://weft.local2/ns/paris/sa/orders",
    ] {
        assert!(!site.permits(&id(bad)), "{bad}");
    }
    assert_eq!(
        site.delegate(),
        id("spiffe://weft.local/ns/weft-system/sa/site-paris")
    );
}

#[test]
fn a_list_that_is_too_wide_foreign_or_empty_is_refused() {
    for (list, word) in [
        (&[][..], "nobody"),
        (&["spiffe://weft.local"][..], "names a trust domain"),
        (&["spiffe://weft.local/*"][..], "whole trust domain"),
        (&["spiffe://weft.local/ns/*"][..], "whole trust domain"),
        (&["spiffe://weft.local/ns/weft-system/*"][..], "weft's own"),
        (
            &["spiffe://weft.local/ns/weft-system/sa/control"][..],
            "weft's own",
        ),
        (&["spiffe://other.local/ns/a/*"][..], "another trust domain"),
        (&["spiffe://weft.local/ns/a*/*"][..], "not a SPIFFE ID"),
        (&["/ns/a/*"][..], "not a SPIFFE ID"),
    ] {
        let error = site(list).unwrap_err().to_string();
        assert!(error.contains(word), "{list:?}: {error}");
    }
    for name in ["", "Paris", "a.b", "-a", "a-", &"a".repeat(49)] {
        let made = Site::new(name, &td("weft.local"), &["spiffe://weft.local/ns/a/*"]);
        assert!(made.is_err(), "{name:?}");
        assert!(delegate_id(&td("weft.local"), name).is_err(), "{name:?}");
    }
}

#[test]
fn a_list_survives_its_form_in_a_certificate_and_no_other_bytes_make_one() {
    let many: Vec<String> = (0..200)
        .map(|n| format!("spiffe://weft.local/ns/site-{n}/*"))
        .collect();
    for list in [vec!["spiffe://weft.local/ns/a/sa/b".to_owned()], many] {
        let made = Site::new("paris", &td("weft.local"), &list).unwrap();
        let bytes = made.to_der();
        assert_eq!(Site::from_der(&td("weft.local"), &bytes), Ok(made));
        // Of another trust domain it is no list.
        assert!(Site::from_der(&td("other.local"), &bytes).is_err());
        for cut in 0..bytes.len() {
            assert!(Site::from_der(&td("weft.local"), &bytes[..cut]).is_err());
        }
        let more = [bytes.as_slice(), &[0]].concat();
        assert!(Site::from_der(&td("weft.local"), &more).is_err());
    }
}

#[test]
fn the_identifier_is_the_same_in_both_forms() {
    let mut out = vec![0x69];
    let mut rest = OID[2];
    let mut digits = vec![u8::try_from(rest & 0x7f).unwrap()];
    rest >>= 7;
    while rest > 0 {
        digits.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.extend(digits.iter().rev());
    assert_eq!((OID[0], OID[1], out.as_slice()), (2, 25, &OID_DER[..]));
}
