#![allow(clippy::unwrap_used)]

use rcgen::{BasicConstraints, CertificateParams, CustomExtension, IsCa, KeyUsagePurpose};

use super::*;
use crate::testing::{Ca, hours, id, now, td};
use crate::{BundleSet, RevocationList, RootPin, Usage, VerifyError, verify_chain};

const PARIS: &str = "spiffe://weft.local/ns/paris/sa/orders";
const ROME: &str = "spiffe://weft.local/ns/rome/sa/orders";

fn list(critical: bool) -> CustomExtension {
    let site = Site::new(
        "paris",
        &td("weft.local"),
        &["spiffe://weft.local/ns/paris/*"],
    )
    .unwrap();
    let mut extension = CustomExtension::from_oid_content(Site::oid(), site.to_der());
    extension.set_criticality(critical);
    extension
}

fn make_delegate(params: &mut CertificateParams) {
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.custom_extensions.push(list(true));
}

fn delegate(root: &Ca) -> Ca {
    root.issuing_with(make_delegate)
}

fn verify(chain: &[CertificateDer<'_>], bundles: &BundleSet) -> Result<SpiffeId, VerifyError> {
    let client = verify_chain(chain, bundles, now(), Usage::Client).map(|peer| peer.id);
    let server = verify_chain(chain, bundles, now(), Usage::Server).map(|peer| peer.id);
    assert_eq!(client, server, "both roles judge alike");
    client
}

#[track_caller]
fn refused(chain: &[CertificateDer<'_>], bundles: &BundleSet, reason: &str, words: &str) {
    let error = verify(chain, bundles).expect_err("should be refused");
    assert_eq!(error.reason(), reason, "{error}");
    assert!(error.to_string().contains(words), "{error}");
}

/// A leaf for [`PARIS`] under a delegate that has this changed.
#[track_caller]
fn refused_delegate(change: impl FnOnce(&mut CertificateParams), reason: &str, words: &str) {
    let root = Ca::root("weft.local");
    let delegate = root.issuing_with(|params| {
        make_delegate(params);
        change(params);
    });
    refused(&delegate.chain(PARIS), &root.bundles(), reason, words);
}

#[test]
fn a_delegate_vouches_for_its_site_and_for_nobody_else() {
    let root = Ca::root("weft.local");
    let (delegate, bundles) = (delegate(&root), root.bundles());
    assert_eq!(verify(&delegate.chain(PARIS), &bundles).unwrap(), id(PARIS));
    let own = "spiffe://weft.local/ns/weft-system/sa/site-paris";
    assert_eq!(verify(&delegate.chain(own), &bundles).unwrap(), id(own));
    // With the root behind it, as it is sent to joiners.
    let mut chain = delegate.chain(PARIS);
    chain.push(root.der.clone());
    verify(&chain, &bundles).unwrap();
    for other in [
        ROME,
        "spiffe://weft.local/ns/paris-2/sa/orders",
        "spiffe://weft.local/ns/weft-system/sa/control",
        "spiffe://weft.local/ns/weft-system/sa/site-rome",
    ] {
        refused(
            &delegate.chain(other),
            &bundles,
            "bad_chain",
            "site paris may not vouch for it",
        );
    }
}

#[test]
fn a_delegate_of_one_trust_domain_vouches_for_nobody_of_another() {
    let (root, other) = (Ca::root("weft.local"), Ca::root("other.local"));
    let mut bundles = root.bundles();
    bundles.insert(other.bundle("other.local"));
    let foreign = "spiffe://other.local/ns/paris/sa/orders";
    refused(
        &delegate(&root).chain(foreign),
        &bundles,
        "bad_chain",
        "names what no delegate may vouch for",
    );
    // Nor does a root of another one make delegates here.
    refused(
        &delegate(&other).chain(PARIS),
        &bundles,
        "unknown_authority",
        "not issued by an authority",
    );
}

#[test]
fn a_delegate_that_has_ended_or_not_begun_vouches_for_nobody() {
    refused_delegate(
        |p| p.not_after = (now() - hours(1)).into(),
        "expired",
        "issuer",
    );
    refused_delegate(
        |p| p.not_before = (now() + hours(1)).into(),
        "not_yet_valid",
        "issuer",
    );
    let root = Ca::root_with("weft.local", |p| p.not_after = (now() - hours(1)).into());
    refused(
        &delegate(&root).chain(PARIS),
        &root.bundles(),
        "expired",
        "root",
    );
}

#[test]
fn a_delegate_makes_no_authority() {
    refused_delegate(
        |p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)),
        "bad_chain",
        "may make other authorities",
    );
    refused_delegate(
        |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
        "bad_chain",
        "may make other authorities",
    );
    let root = Ca::root("weft.local");
    // One that it makes all the same, without a list or with its own.
    let below = delegate(&root).issuing();
    assert!(verify(&below.chain(PARIS), &root.bundles()).is_err());
    let below = delegate(&root).issuing_with(make_delegate);
    refused(
        &below.chain(PARIS),
        &root.bundles(),
        "unknown_authority",
        "not issued",
    );
    // Neither does an issuing authority make delegates: only a root.
    let below = delegate(&root.issuing());
    refused(
        &below.chain(PARIS),
        &root.bundles(),
        "unknown_authority",
        "not issued",
    );
}

#[test]
fn a_delegate_has_the_form_that_the_authority_gives_it() {
    refused_delegate(
        |p| p.custom_extensions = vec![list(false)],
        "bad_chain",
        "not critical",
    );
    refused_delegate(
        |p| p.custom_extensions.push(list(true)),
        "bad_chain",
        "two lists",
    );
    refused_delegate(
        |p| {
            let mut other = CustomExtension::from_oid_content(&[2, 25, 7], vec![5, 0]);
            other.set_criticality(true);
            p.custom_extensions.push(other);
        },
        "bad_chain",
        "critical extension that is not known",
    );
    refused_delegate(
        |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
        "bad_chain",
        "keyCertSign",
    );
}

#[test]
fn a_root_with_path_length_0_makes_no_delegate() {
    let root = Ca::root_with("weft.local", |p| {
        p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    });
    refused(
        &delegate(&root).chain(PARIS),
        &root.bundles(),
        "bad_chain",
        "may not make one",
    );
}

#[test]
fn a_forged_signature_of_delegate_or_leaf_is_refused() {
    let root = Ca::root("weft.local");
    let (one, two) = (delegate(&root), delegate(&root));
    let swapped = [one.chain(PARIS)[0].clone(), two.der.clone()];
    assert!(verify(&swapped, &root.bundles()).is_err());
    // Of a root of the same name.
    let double = Ca::root("weft.local");
    refused(
        &delegate(&double).chain(PARIS),
        &root.bundles(),
        "unknown_authority",
        "not issued",
    );
}

#[test]
fn all_that_a_delegate_issued_goes_with_its_key() {
    let root = Ca::root("weft.local");
    let delegate = delegate(&root);
    let mut bundles = root.bundles();
    let revoked = |keys: &[RootPin]| RevocationList {
        edition: 1,
        keys: keys.iter().copied().collect(),
        ..RevocationList::default()
    };
    let key = RootPin::of(&delegate.der).unwrap();
    bundles.revoke(td("weft.local"), revoked(&[key]));
    refused(
        &delegate.chain(PARIS),
        &bundles,
        "revoked",
        "revoked by its issuer's key",
    );
    // And one leaf by its own.
    let chain = delegate.chain(PARIS);
    let key = RootPin::of(&chain[0]).unwrap();
    bundles.revoke(td("weft.local"), revoked(&[key]));
    refused(&chain, &bundles, "revoked", "revoked by its key");
    verify(&delegate.chain(PARIS), &bundles).unwrap();
}

#[test]
fn rfc_5280_4_2_who_does_not_know_the_list_refuses_the_chain() {
    let root = Ca::root("weft.local");
    let chain = delegate(&root).chain(PARIS);
    let bundle = root.bundle("weft.local");
    let strange = PathCheck {
        leaf: &chain[0],
        intermediates: &chain[1..],
        now: now(),
        usage: Usage::Client,
        revoked: None,
    };
    assert!(strange.to_roots(&bundle.roots).is_err());
}
