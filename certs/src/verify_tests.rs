#![allow(clippy::unwrap_used)]

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

use super::*;
use crate::testing::{Ca, INVOICES, ORDERS, hours, id, lax_key_usage, lax_san, now, td, uri};
use crate::{RootPin, TrustBundle};

fn verify(chain: &[CertificateDer<'_>], bundles: &BundleSet) -> Result<PeerIdentity, VerifyError> {
    let client = verify_chain(chain, bundles, now(), Usage::Client);
    let server = verify_chain(chain, bundles, now(), Usage::Server);
    assert_eq!(client, server, "both roles judge alike");
    client
}

/// The reason for which a leaf with this change is refused, and the sentence.
fn refused(change: impl FnOnce(&mut CertificateParams)) -> (&'static str, String) {
    let root = Ca::root("weft.local");
    let chain = root.issuing().chain_with(INVOICES, change);
    let error = verify(&chain, &root.bundles()).expect_err("should be refused");
    (error.reason(), error.to_string())
}

fn accepted(change: impl FnOnce(&mut CertificateParams)) {
    let root = Ca::root("weft.local");
    let chain = root.issuing().chain_with(INVOICES, change);
    verify(&chain, &root.bundles()).expect("should be accepted");
}

#[test]
fn accepts_a_leaf_under_an_issuing_ca() {
    let root = Ca::root("weft.local");
    let peer = verify(&root.issuing().chain(INVOICES), &root.bundles()).unwrap();
    assert_eq!(peer.id, id(INVOICES));
    assert_eq!(peer.not_after, now() + hours(1));
    assert!(
        !peer.serial.is_empty() && peer.serial.bytes().all(|b| b.is_ascii_hexdigit()),
        "{}",
        peer.serial
    );
}

#[test]
fn accepts_a_leaf_directly_under_the_root_and_one_with_the_root_sent_along() {
    let root = Ca::root("weft.local");
    verify(&root.chain(INVOICES), &root.bundles()).unwrap();
    let mut chain = root.issuing().chain(INVOICES);
    chain.push(root.der.clone());
    verify(&chain, &root.bundles()).unwrap();
}

#[test]
fn accepts_what_the_standard_leaves_free() {
    accepted(|p| {
        p.subject_alt_names
            .push(SanType::DnsName("invoices.internal".try_into().unwrap()))
    });
    accepted(|p| {
        p.key_usages.extend([
            KeyUsagePurpose::KeyEncipherment,
            KeyUsagePurpose::KeyAgreement,
        ])
    });
    accepted(|p| p.extended_key_usages.clear());
    accepted(|p| p.is_ca = IsCa::NoCa);
    accepted(|p| p.distinguished_name.push(DnType::CommonName, "invoices"));
}

#[test]
fn x509_svid_5_rejects_an_empty_chain() {
    let error = verify(&[], &Ca::root("weft.local").bundles()).unwrap_err();
    assert_eq!(error.reason(), "no_certificate");
}

#[test]
fn rejects_what_is_no_certificate_or_has_more_behind_it() {
    let root = Ca::root("weft.local");
    let mut chain = root.chain(INVOICES);
    chain[0] = [chain[0].as_ref(), &[0]].concat().into();
    assert_eq!(
        verify(&chain, &root.bundles()).unwrap_err().reason(),
        "bad_certificate"
    );
    assert_eq!(
        verify(&[vec![1, 2, 3].into()], &root.bundles())
            .unwrap_err()
            .reason(),
        "bad_certificate"
    );
}

#[test]
fn x509_svid_2_rejects_zero_or_two_uri_names() {
    assert_eq!(refused(|p| p.subject_alt_names.clear()).0, "not_an_svid");
    let dns = SanType::DnsName("invoices".try_into().unwrap());
    assert_eq!(
        refused(|p| p.subject_alt_names = vec![dns]).0,
        "not_an_svid"
    );
    assert_eq!(
        refused(|p| p.subject_alt_names.push(uri(ORDERS))).0,
        "not_an_svid"
    );
    let (reason, text) = refused(|p| p.subject_alt_names.push(uri("https://example.org/")));
    assert_eq!(reason, "not_an_svid");
    assert!(text.contains("more than one URI"), "{text}");
}

#[test]
fn x509_svid_2_rejects_a_uri_that_is_no_spiffe_id() {
    assert_eq!(
        refused(|p| p.subject_alt_names = vec![uri("https://weft.local/x")]).0,
        "not_an_svid"
    );
    assert_eq!(
        refused(|p| p.subject_alt_names = vec![uri("spiffe://weft.local/a/../b")]).0,
        "not_an_svid"
    );
}

#[test]
fn x509_svid_3_1_rejects_an_id_without_path() {
    assert_eq!(
        refused(|p| p.subject_alt_names = vec![uri("spiffe://weft.local")]).0,
        "not_an_svid"
    );
}

#[test]
fn rejects_an_empty_subject_with_names_that_are_not_critical() {
    let (reason, text) = refused(|p| {
        p.subject_alt_names.clear();
        p.custom_extensions.push(lax_san(INVOICES));
    });
    assert_eq!(reason, "not_an_svid");
    assert!(text.contains("not critical"), "{text}");
}

#[test]
fn x509_svid_4_1_rejects_a_ca_as_leaf() {
    assert_eq!(
        refused(|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)).0,
        "not_an_svid"
    );
}

#[test]
fn x509_svid_4_3_checks_key_usage() {
    assert_eq!(
        refused(|p| p.key_usages.push(KeyUsagePurpose::KeyCertSign)).0,
        "not_an_svid"
    );
    assert_eq!(
        refused(|p| p.key_usages.push(KeyUsagePurpose::CrlSign)).0,
        "not_an_svid"
    );
    assert_eq!(
        refused(|p| p.key_usages = vec![KeyUsagePurpose::KeyAgreement]).0,
        "not_an_svid"
    );
    assert_eq!(refused(|p| p.key_usages.clear()).0, "not_an_svid");
    let (reason, text) = refused(|p| {
        p.key_usages.clear();
        p.custom_extensions.push(lax_key_usage());
    });
    assert_eq!(reason, "not_an_svid");
    assert!(text.contains("key usage is not critical"), "{text}");
}

#[test]
fn x509_svid_4_4_wants_both_purposes_or_none() {
    for one in [
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ] {
        assert_eq!(
            refused(|p| p.extended_key_usages = vec![one]).0,
            "not_an_svid"
        );
    }
}

#[test]
fn a_leaf_is_valid_from_its_first_to_its_last_second() {
    let root = Ca::root("weft.local");
    let chain = root.chain(INVOICES);
    let second = Duration::from_secs(1);
    let (begin, end) = (now() - second * 60, now() + hours(1));
    let check = |at| verify_chain(&chain, &root.bundles(), at, Usage::Client).map(drop);
    check(begin).unwrap();
    check(end).unwrap();
    check(end + Duration::from_millis(900)).unwrap();
    let error = check(begin - second).unwrap_err();
    assert_eq!(error.reason(), "not_yet_valid");
    assert!(
        error.to_string().contains("2027-01-15T07:59:00Z"),
        "{error}"
    );
    assert_eq!(check(end + second).unwrap_err().reason(), "expired");
}

#[test]
fn rejects_issuer_and_root_out_of_their_time() {
    let past = |p: &mut CertificateParams| p.not_after = (now() - hours(1)).into();
    let future = |p: &mut CertificateParams| p.not_before = (now() + hours(1)).into();
    let root = Ca::root("weft.local");
    let verdict = |chain: Vec<_>, bundles: &BundleSet| verify(&chain, bundles).unwrap_err();
    assert_eq!(
        verdict(root.issuing_with(past).chain(INVOICES), &root.bundles()).reason(),
        "expired"
    );
    assert_eq!(
        verdict(root.issuing_with(future).chain(INVOICES), &root.bundles()).reason(),
        "not_yet_valid"
    );

    for (change, reason) in [(past as fn(&mut _), "expired"), (future, "not_yet_valid")] {
        let root = Ca::root_with("weft.local", change);
        let error = verdict(root.issuing().chain(INVOICES), &root.bundles());
        assert_eq!(error.reason(), reason);
        assert!(
            error
                .to_string()
                .contains("the root of spiffe://weft.local/"),
            "{error}"
        );
    }
}

#[test]
fn an_expired_root_beside_a_good_one_does_no_harm() {
    let dead = Ca::root_with("weft.local", |p| p.not_after = (now() - hours(1)).into());
    let live = Ca::root("weft.local");
    let roots = vec![dead.der.clone(), live.der.clone()];
    let bundles = TrustBundle {
        trust_domain: td("weft.local"),
        sequence: 2,
        roots,
        jwt_keys: Vec::new(),
    }
    .into();
    verify(&live.issuing().chain(INVOICES), &bundles).unwrap();
    assert_eq!(
        verify(&dead.issuing().chain(INVOICES), &bundles)
            .unwrap_err()
            .reason(),
        "expired"
    );
    assert_eq!(
        verify(&Ca::root("x").chain(INVOICES), &bundles)
            .unwrap_err()
            .reason(),
        "unknown_authority"
    );
}

#[test]
fn bundles_of_different_trust_domains_are_never_pooled() {
    let (ours, theirs) = (Ca::root("weft.local"), Ca::root("other.example"));
    let bundles: BundleSet = [ours.bundle("weft.local"), theirs.bundle("other.example")]
        .into_iter()
        .collect();
    // An authority that we do know, for a trust domain that is not its own.
    let error = verify(&theirs.issuing().chain(INVOICES), &bundles).unwrap_err();
    assert_eq!(error.reason(), "unknown_authority");
    verify(
        &theirs
            .issuing()
            .chain("spiffe://other.example/ns/default/sa/x"),
        &bundles,
    )
    .unwrap();
}

#[test]
fn rejects_an_authority_of_the_same_name_with_another_key() {
    let (ours, impostor) = (Ca::root("weft.local"), Ca::root("weft.local"));
    for chain in [impostor.chain(INVOICES), impostor.issuing().chain(INVOICES)] {
        assert_eq!(
            verify(&chain, &ours.bundles()).unwrap_err().reason(),
            "unknown_authority"
        );
    }
}

#[test]
fn rejects_a_chain_that_lacks_its_issuer() {
    let root = Ca::root("weft.local");
    let chain = root.issuing().chain(INVOICES);
    assert_eq!(
        verify(&chain[..1], &root.bundles()).unwrap_err().reason(),
        "unknown_authority"
    );
}

#[test]
fn rejects_a_trust_domain_without_bundle_and_with_an_empty_one() {
    let root = Ca::root("weft.local");
    let chain = root.chain(INVOICES);
    assert_eq!(
        verify(&chain, &BundleSet::new()).unwrap_err().reason(),
        "unknown_trust_domain"
    );
    let empty = TrustBundle {
        trust_domain: td("weft.local"),
        sequence: 9,
        roots: vec![],
        jwt_keys: Vec::new(),
    };
    assert_eq!(
        verify(&chain, &empty.into()).unwrap_err().reason(),
        "unknown_authority"
    );
}

#[test]
fn x509_svid_4_rejects_an_issuer_that_may_not_issue() {
    let root = Ca::root("weft.local");
    let no_ca = root.issuing_with(|p| p.is_ca = IsCa::ExplicitNoCa);
    assert_eq!(
        verify(&no_ca.chain(INVOICES), &root.bundles())
            .unwrap_err()
            .reason(),
        "bad_chain"
    );
    let no_sign = root.issuing_with(|p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature]);
    assert_eq!(
        verify(&no_sign.chain(INVOICES), &root.bundles())
            .unwrap_err()
            .reason(),
        "bad_chain"
    );
    let no_usage = root.issuing_with(|p| p.key_usages.clear());
    assert_eq!(
        verify(&no_usage.chain(INVOICES), &root.bundles())
            .unwrap_err()
            .reason(),
        "bad_chain"
    );
}

#[test]
fn rejects_a_leaf_that_signs_another() {
    let root = Ca::root("weft.local");
    let leaf_as_ca = root.issuing_with(|p| {
        p.is_ca = IsCa::ExplicitNoCa;
        p.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        p.subject_alt_names = vec![uri(ORDERS)];
    });
    assert_eq!(
        verify(&leaf_as_ca.chain(INVOICES), &root.bundles())
            .unwrap_err()
            .reason(),
        "bad_chain"
    );
}

#[test]
fn rejects_a_path_longer_than_its_issuer_allows() {
    let root = Ca::root("weft.local");
    let last = root.issuing_with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let beyond = last.issuing_with(|p| {
        p.distinguished_name
            .push(DnType::OrganizationName, "beyond")
    });
    assert_eq!(
        verify(&beyond.chain(INVOICES), &root.bundles())
            .unwrap_err()
            .reason(),
        "bad_chain"
    );
}

#[test]
fn a_chain_is_bounded() {
    let root = Ca::root("weft.local");
    let mut chain = root.chain(INVOICES);
    chain.extend(std::iter::repeat_n(root.der.clone(), MAX_CHAIN));
    assert_eq!(
        verify(&chain, &root.bundles()).unwrap_err().reason(),
        "bad_chain"
    );
}

#[test]
fn the_expected_identity_is_checked_last() {
    let root = Ca::root("weft.local");
    let chain = root.chain(INVOICES);
    let check = |expected: ExpectedPeer| verify_expected(&chain, &root.bundles(), now(), &expected);
    check(id(INVOICES).into()).unwrap();
    check(ExpectedPeer::AnyOf([id(INVOICES), id(ORDERS)].into())).unwrap();
    let error = check(id(ORDERS).into()).unwrap_err();
    assert_eq!(error.reason(), "wrong_identity");
    assert_eq!(
        error.to_string(),
        format!("the peer is {INVOICES}, expected {ORDERS}")
    );
    assert_eq!(
        check(ExpectedPeer::AnyOf(BTreeSet::new()))
            .unwrap_err()
            .reason(),
        "wrong_identity"
    );
}

#[test]
fn a_pin_is_of_the_key() {
    let (root, other) = (Ca::root("weft.local"), Ca::root("weft.local"));
    let pin = RootPin::of(&root.der).unwrap();
    assert!(pin.matches(&root.der) && !pin.matches(&other.der) && !pin.matches(&vec![0].into()));
    assert!(root.bundle("weft.local").has_pin(&pin));
    let text = pin.to_string();
    assert_eq!(text.parse::<RootPin>().unwrap(), pin);
    assert_eq!(text.replace("sha256:", "").len(), 64);
    assert_eq!(
        serde_json::from_str::<RootPin>(&serde_json::to_string(&pin).unwrap()).unwrap(),
        pin
    );
    for bad in [
        "",
        "sha256:",
        "sha1:00",
        &text[..70],
        &format!("{text}0"),
        &text.replace("sha256:", ""),
        &text.replace(':', "="),
    ] {
        assert!(RootPin::parse(bad).is_err(), "{bad:?} should be rejected");
    }
    assert!(RootPin::parse(&format!("sha256:{}", "g".repeat(64))).is_err());
    assert!(RootPin::parse(&format!("sha256:{}", "é".repeat(32))).is_err());
}
