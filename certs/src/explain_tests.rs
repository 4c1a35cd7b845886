//! Adversarial chains: each breaks one rule, and is told which.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, GeneralSubtree, IsCa, KeyUsagePurpose,
    NameConstraints, SerialNumber,
};

use super::*;
use crate::testing::{Ca, INVOICES, hours, now, td};
use crate::{RevocationList, TrustBundle};

/// The rule that does not hold, by its number from 1, and why.
fn broken(chain: &[CertificateDer<'_>], bundles: &BundleSet) -> Option<(usize, String)> {
    let findings = explain(chain, bundles, now());
    assert_eq!(findings.len(), RULES.len());
    let at = findings.iter().position(|f| f.holds == Some(false))?;
    assert!(findings[..at].iter().all(|f| f.holds == Some(true)));
    assert!(findings[at + 1..].iter().all(|f| f.holds.is_none()));
    Some((at + 1, findings[at].reason.clone().unwrap()))
}

#[test]
fn a_good_chain_holds_in_all_rules() {
    let root = Ca::root("weft.local");
    assert_eq!(
        broken(&root.issuing().chain(INVOICES), &root.bundles()),
        None
    );
}

#[test]
fn each_rule_is_named_when_it_breaks() {
    let root = Ca::root("weft.local");
    let bundles = root.bundles();
    let issuing = root.issuing();
    type Change = fn(&mut CertificateParams);
    let leaves: [(&str, Change, usize, &str); 7] = [
        (
            "CA:TRUE",
            |p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained),
            2,
            "CA certificate",
        ),
        (
            "keyCertSign",
            |p| p.key_usages.push(KeyUsagePurpose::KeyCertSign),
            2,
            "keyCertSign",
        ),
        ("no usage", |p| p.key_usages.clear(), 2, "no key usage"),
        (
            "one purpose",
            |p| drop(p.extended_key_usages.pop()),
            2,
            "serverAuth and clientAuth",
        ),
        (
            "expired",
            |p| p.not_after = (now() - hours(1)).into(),
            4,
            "expired",
        ),
        (
            "future",
            |p| p.not_before = (now() + hours(1)).into(),
            4,
            "valid from",
        ),
        (
            "a critical extension that nobody knows",
            |p| {
                let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
                unknown.set_criticality(true);
                p.custom_extensions.push(unknown);
            },
            1,
            "ritical",
        ),
    ];
    for (name, change, rule, words) in leaves {
        let chain = issuing.chain_with(INVOICES, change);
        let (at, reason) = broken(&chain, &bundles).expect(name);
        assert_eq!(at, rule, "{name}: {reason}");
        assert!(reason.contains(words), "{name}: {reason}");
    }
    let authorities: [(&str, Change, usize); 4] = [
        ("not a CA", |p| p.is_ca = IsCa::ExplicitNoCa, 5),
        (
            "may not sign",
            |p| p.key_usages = vec![KeyUsagePurpose::CrlSign],
            5,
        ),
        ("ended", |p| p.not_after = (now() - hours(1)).into(), 5),
        (
            "name constraints of others",
            |p| {
                p.name_constraints = Some(NameConstraints {
                    permitted_subtrees: vec![GeneralSubtree::DnsName("example.org".into())],
                    excluded_subtrees: Vec::new(),
                });
            },
            0,
        ),
    ];
    for (name, change, rule) in authorities {
        let chain = root.issuing_with(change).chain(INVOICES);
        let found = broken(&chain, &bundles).map_or(0, |(at, _)| at);
        // A constraint on DNS names says nothing about URIs.
        assert_eq!(found, rule, "{name}");
    }
    let chain = issuing.chain(INVOICES);
    let other = Ca::root("weft.local").bundles();
    assert_eq!(broken(&chain, &other).unwrap().0, 6);
    let elsewhere = Ca::root("elsewhere").bundle("elsewhere").into();
    assert_eq!(broken(&chain, &elsewhere).unwrap().0, 3);
    let mut revoked = root.bundles();
    let serials = [der::serial_of(&chain[0]).unwrap()].into();
    revoked.revoke(
        td("weft.local"),
        RevocationList {
            serials,
            ..RevocationList::default()
        },
    );
    assert_eq!(broken(&chain, &revoked).unwrap().0, 7);
}

#[test]
fn path_lengths_and_overlong_chains_are_refused() {
    let root = Ca::root("weft.local");
    let narrow = root.issuing_with(|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    let deeper = narrow.issuing_with(|p| {
        p.distinguished_name
            .push(rcgen::DnType::CommonName, "deeper");
    });
    let too_deep = deeper.chain(INVOICES);
    let (at, reason) = broken(&too_deep, &root.bundles()).unwrap();
    assert_eq!(at, 5, "{reason}");
    let mut long = root.chain(INVOICES);
    let filler = root.issuing().der;
    long.extend(std::iter::repeat_n(filler, 20));
    let (at, reason) = broken(&long, &root.bundles()).unwrap();
    assert_eq!(at, 5);
    assert!(reason.contains("more than 10"), "{reason}");
}

#[test]
fn der_is_der_and_nothing_else() {
    let root = Ca::root("weft.local");
    let good = root.chain(INVOICES).remove(0);
    let bundles = root.bundles();
    let verdict = |der: Vec<u8>| broken(&[CertificateDer::from(der)], &bundles).map(|(at, _)| at);
    let mut trailing = good.to_vec();
    trailing.push(0);
    assert_eq!(verdict(trailing), Some(1), "bytes behind it");
    // BER: the outer length in more bytes than it needs.
    let mut ber = vec![0x30, 0x83, 0x00];
    ber.extend_from_slice(&good[2..]);
    assert!(
        verdict(ber).is_some(),
        "a long form that is not the shortest"
    );
    // BER: indefinite length.
    let mut indefinite = vec![0x30, 0x80];
    indefinite.extend_from_slice(&good[4..]);
    indefinite.extend_from_slice(&[0, 0]);
    assert!(verdict(indefinite).is_some(), "indefinite length");
    assert_eq!(verdict(Vec::new()), Some(1));
    assert_eq!(
        verdict(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        Some(1),
        "a length of 4 GB"
    );
}

#[test]
fn a_name_given_twice_is_refused() {
    let root = Ca::root("weft.local");
    let twice = root.chain_with(INVOICES, |p| {
        p.subject_alt_names
            .push(crate::testing::uri("spiffe://weft.local/x"));
    });
    let (at, reason) = broken(&twice, &root.bundles()).unwrap();
    assert_eq!(at, 2);
    assert!(reason.contains("more than one URI"), "{reason}");
    // The whole extension a second time (RFC 5280 §4.2).
    let duplicate = root.chain_with(INVOICES, |p| {
        p.custom_extensions.push(crate::testing::lax_san(INVOICES));
    });
    assert!(broken(&duplicate, &root.bundles()).is_some());
}

#[test]
fn odd_serials_do_not_break_anything() {
    let root = Ca::root("weft.local");
    for serial in [vec![0x80, 1], vec![0; 1], vec![0x7f; 64]] {
        let chain = root.chain_with(INVOICES, |p| {
            p.serial_number = Some(SerialNumber::from(serial.clone()));
        });
        // A verdict, whichever: never a panic, and never another serial than the certificate's.
        let _ = explain(&chain, &root.bundles(), now());
        if let Ok(description) = describe(&chain[0], now()) {
            assert!(description.serial.len() <= 130);
        }
    }
}

#[test]
fn a_certificate_is_described_as_what_it_is() {
    let root = Ca::root("weft.local");
    let leaf = describe(&root.chain(INVOICES)[0], now()).unwrap();
    assert_eq!(
        (leaf.role, leaf.names.as_slice()),
        ("leaf", [INVOICES.to_owned()].as_slice())
    );
    assert_eq!(leaf.seconds_left, 3600);
    assert_eq!(leaf.fault, None);
    let authority = describe(&root.der, now()).unwrap();
    assert_eq!(authority.role, "authority");
    assert_eq!(authority.names, ["spiffe://weft.local"]);
    let odd = root.chain_with(INVOICES, |p| p.key_usages.clear());
    assert!(
        describe(&odd[0], now())
            .unwrap()
            .fault
            .unwrap()
            .contains("no key usage")
    );
    let text = to_pem(&root.der) + &to_pem(&odd[0]);
    assert_eq!(
        certificates(text.as_bytes()).unwrap(),
        [root.der.clone(), odd[0].clone()]
    );
    assert_eq!(certificates(&root.der).unwrap().len(), 1);
    assert!(certificates(b"nothing").is_err());
}

proptest! {
    #[test]
    fn arbitrary_changes_to_a_chain_never_panic(at in 0_usize..4096, byte in any::<u8>(), cut in 0_usize..4096) {
        let root = fixed();
        let mut der = root.1.to_vec();
        let index = at % der.len();
        der[index] = byte;
        der.truncate(der.len() - cut % der.len() / 2);
        let chain = [CertificateDer::from(der)];
        let _ = explain(&chain, &root.0, now());
        let _ = describe(&chain[0], now());
    }

    #[test]
    fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..512)) {
        let chain = [CertificateDer::from(data)];
        let _ = explain(&chain, &fixed().0, now());
        let _ = certificates(&chain[0]);
    }
}

/// Made once: keys are slow.
fn fixed() -> &'static (BundleSet, CertificateDer<'static>) {
    static FIXED: std::sync::OnceLock<(BundleSet, CertificateDer<'static>)> =
        std::sync::OnceLock::new();
    FIXED.get_or_init(|| {
        let root = Ca::root("weft.local");
        let bundle: TrustBundle = root.bundle("weft.local");
        (bundle.into(), root.chain(INVOICES).remove(0))
    })
}
