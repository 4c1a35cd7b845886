#![allow(clippy::unwrap_used)]

use super::*;
use crate::TrustBundle;
use crate::testing::{Ca, INVOICES, hours, now, td};

#[test]
fn a_vouched_svid_replaces_the_old_one() {
    let root = Ca::root("weft.local");
    let source = IdentitySource::new(root.svid(INVOICES), root.bundles());
    let (before, changes) = (source.current(), source.subscribe());
    source.replace_svid(root.svid(INVOICES), now()).unwrap();
    let after = source.current();
    assert_ne!(before.svid.serial(), after.svid.serial());
    assert_eq!(
        (after.generation, after.bundle_generation),
        (before.generation + 1, before.bundle_generation)
    );
    assert!(changes.has_changed().unwrap());
}

#[test]
fn an_svid_that_the_bundles_do_not_vouch_for_changes_nothing() {
    let (root, other) = (Ca::root("weft.local"), Ca::root("weft.local"));
    let source = IdentitySource::new(root.svid(INVOICES), root.bundles());
    let (before, changes) = (source.current(), source.subscribe());
    let refusals = [
        (
            source.replace_svid(other.svid(INVOICES), now()),
            "unknown_authority",
        ),
        (
            source.replace_svid(root.svid(INVOICES), now() + hours(2)),
            "expired",
        ),
        (
            source.replace_svid(root.svid(INVOICES), now() - hours(2)),
            "not_yet_valid",
        ),
        (
            source.replace_bundles(other.bundles(), now()),
            "unknown_authority",
        ),
        (
            source.replace_bundles(BundleSet::new(), now()),
            "unknown_trust_domain",
        ),
        (
            source.replace(other.svid(INVOICES), root.bundles(), now()),
            "unknown_authority",
        ),
    ];
    for (refusal, reason) in refusals {
        assert_eq!(refusal.unwrap_err().reason(), reason);
    }
    assert!(Arc::ptr_eq(&before, &source.current()));
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn a_root_rotation_goes_through_both_roots() {
    let (old, new) = (Ca::root("weft.local"), Ca::root("weft.local"));
    let both = TrustBundle {
        trust_domain: td("weft.local"),
        sequence: 2,
        roots: vec![old.der.clone(), new.der.clone()],
        jwt_keys: Vec::new(),
    };
    let source = IdentitySource::new(old.svid(INVOICES), old.bundles());
    source.replace_bundles(both.into(), now()).unwrap();
    assert_eq!(
        source.current().generation,
        1,
        "a new bundle never renews the SVID"
    );
    source.replace_svid(new.svid(INVOICES), now()).unwrap();
    source.replace_bundles(new.bundles(), now()).unwrap();
    assert_eq!(
        (
            source.current().generation,
            source.current().bundle_generation
        ),
        (2, 3)
    );
}

#[test]
fn a_node_whose_svid_has_expired_still_learns_whom_to_trust() {
    let root = Ca::root("weft.local");
    let source = IdentitySource::new(root.svid(INVOICES), root.bundles());
    source
        .replace_bundles(root.bundles(), now() + hours(2))
        .unwrap();
}

#[test]
fn both_can_change_in_one_step() {
    let (old, new) = (Ca::root("weft.local"), Ca::root("weft.local"));
    let source = IdentitySource::new(old.svid(INVOICES), old.bundles());
    source
        .replace(new.svid(INVOICES), new.bundles(), now())
        .unwrap();
    assert_eq!(
        (
            source.current().generation,
            source.current().bundle_generation
        ),
        (2, 2)
    );
}
