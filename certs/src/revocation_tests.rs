#![allow(clippy::unwrap_used)]

use super::*;
use crate::testing::{Ca, INVOICES, ORDERS, hours, id, now, td};
use crate::{BundleSet, CertificateDer, IdentitySource, Usage, X509Svid, verify_chain};

fn unix(time: SystemTime) -> u64 {
    der::seconds(time)
}

/// The verdict on a chain with this list in force.
fn verdict(ca: &Ca, chain: &[CertificateDer<'_>], list: RevocationList) -> &'static str {
    let mut bundles = ca.bundles();
    bundles.revoke(td("weft.local"), list);
    match verify_chain(chain, &bundles, now(), Usage::Client) {
        Ok(_) => "accepted",
        Err(error) => error.reason(),
    }
}

fn of_identity(name: &str, before_unix: Option<u64>) -> RevocationList {
    RevocationList {
        identities: [(id(name), RevokedIdentity { before_unix })].into(),
        ..RevocationList::default()
    }
}

#[test]
fn an_identity_a_key_and_a_serial_number_are_refused_and_others_are_not() {
    let root = Ca::root("weft.local");
    let issuing = root.issuing();
    let svid = issuing.svid(INVOICES);
    let other = issuing.svid(ORDERS);
    let key = RevocationList {
        keys: [svid.key_pin()].into(),
        ..RevocationList::default()
    };
    let serial = RevocationList {
        serials: [svid.serial().to_owned()].into(),
        ..RevocationList::default()
    };
    for list in [of_identity(INVOICES, None), key, serial] {
        assert_eq!(
            verdict(&root, svid.chain(), list.clone()),
            "revoked",
            "{list:?}"
        );
        assert_eq!(
            verdict(&root, other.chain(), list.clone()),
            "accepted",
            "{list:?}"
        );
    }
    assert_eq!(
        verdict(&root, svid.chain(), RevocationList::default()),
        "accepted"
    );
}

#[test]
fn the_key_of_an_issuing_ca_stands_for_all_that_it_signed() {
    let root = Ca::root("weft.local");
    let (stolen, next) = (root.issuing(), root.issuing());
    let list = RevocationList {
        keys: [RootPin::of(&stolen.der).unwrap()].into(),
        ..RevocationList::default()
    };
    assert_eq!(
        verdict(&root, &stolen.chain(INVOICES), list.clone()),
        "revoked"
    );
    assert_eq!(verdict(&root, &next.chain(INVOICES), list), "accepted");
}

#[test]
fn after_readmission_old_certificates_stay_dead_and_new_ones_live() {
    let root = Ca::root("weft.local");
    let at = now() - hours(1);
    let old = root.chain_with(INVOICES, |p| {
        p.not_before = (at - std::time::Duration::from_secs(1)).into();
    });
    let new = root.chain_with(INVOICES, |p| p.not_before = at.into());
    let list = of_identity(INVOICES, Some(unix(at)));
    assert_eq!(verdict(&root, &old, list.clone()), "revoked");
    assert_eq!(verdict(&root, &new, list.clone()), "accepted");
    assert!(!list.bars(&id(INVOICES)) && of_identity(INVOICES, None).bars(&id(INVOICES)));
}

#[test]
fn a_list_of_one_trust_domain_says_nothing_of_another() {
    let root = Ca::root("weft.local");
    let mut bundles = root.bundles();
    bundles.revoke(td("other"), of_identity(INVOICES, None));
    verify_chain(&root.chain(INVOICES), &bundles, now(), Usage::Client).unwrap();
}

#[test]
fn a_node_that_is_revoked_itself_still_takes_the_list() {
    let root = Ca::root("weft.local");
    let source = IdentitySource::new(root.svid(INVOICES), root.bundles());
    let mut bundles = root.bundles();
    bundles.revoke(td("weft.local"), of_identity(INVOICES, None));
    source.replace_bundles(bundles, now()).unwrap();
    let fresh = root.svid(INVOICES);
    let error = source.replace_svid(fresh, now()).unwrap_err();
    assert_eq!(error.reason(), "revoked", "a new one of it is no better");
}

#[test]
fn the_list_survives_its_text_form_and_an_older_reader_sees_the_roots() {
    let root = Ca::root("weft.local");
    let svid: X509Svid = root.svid(INVOICES);
    let mut bundles = root.bundles();
    let list = RevocationList {
        edition: 7,
        keys: [svid.key_pin()].into(),
        serials: ["0a".to_owned()].into(),
        ..of_identity(ORDERS, Some(5))
    };
    bundles.revoke(td("weft.local"), list);
    let text = serde_json::to_string(&bundles).unwrap();
    assert_eq!(serde_json::from_str::<BundleSet>(&text).unwrap(), bundles);
    let plain = serde_json::to_value(root.bundles()).unwrap();
    let with: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(plain["trust_domains"], with["trust_domains"]);
    assert!(
        plain.get("weft_revoked").is_none(),
        "nothing, nothing written"
    );
    let later = r#"{"edition": 1, "serials": ["0a"], "hosts": ["x"]}"#;
    assert_eq!(
        serde_json::from_str::<RevocationList>(later).unwrap().len(),
        1
    );
}
