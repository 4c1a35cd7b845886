//! An issuing CA under a root that is elsewhere: our own offline root, and openssl as somebody else's.
#![allow(clippy::unwrap_used)]

use rcgen::{BasicConstraints, IsCa, Issuer, KeyPair, KeyUsagePurpose};

use super::*;
use crate::offline::OfflineRoot;
use crate::testing::{INVOICES, authority, config, days, id, now, reload, rng};
use crate::{MemoryKeyStore, make_csr};

fn requested() -> (Authority, MemoryKeyStore, Vec<u8>) {
    let (ca, keys, mut rng) = authority();
    let ca = reload(&ca.intend(Tier::Issuing, &mut rng).unwrap(), &keys);
    let (journal, csr) = ca.request_issuing(&keys, &mut rng).unwrap();
    (reload(&journal, &keys), keys, csr)
}

fn offline() -> (OfflineRoot, MemoryKeyStore) {
    let keys = MemoryKeyStore::new();
    let name = config().trust_domain;
    let kind = KeyType::P384;
    let root = OfflineRoot::create(name, kind, days(3650), &keys, now(), &mut rng()).unwrap();
    (root, keys)
}

fn import(
    ca: &Authority,
    keys: &MemoryKeyStore,
    all: &[CertificateDer<'static>],
) -> Result<Journal, Error> {
    ca.import_issuing(all, keys, now(), &mut rng())
}

#[test]
fn an_offline_root_comes_into_use_without_its_key() {
    let (ca, keys, csr) = requested();
    let before = ca.bundle();
    let (mut root, root_keys) = offline();
    let issuing = root
        .sign(&csr, days(60), &root_keys, now(), &mut rng())
        .unwrap();
    let all = [root.certificate().clone(), issuing];
    let ca = reload(&import(&ca, &keys, &all).unwrap(), &keys);
    assert_eq!(ca.bundle().roots.len(), 2, "trusted before it is used");
    assert!(
        ca.journal().requested().is_none(),
        "the request is answered"
    );
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    let error = ca.journal().next_id(Tier::Issuing).unwrap_err();
    assert!(
        error.to_string().contains("issuing-2 is prepared"),
        "{error}"
    );
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    let leaf = make_csr(None).unwrap();
    let issued = ca
        .issue(&leaf.csr, &id(INVOICES), None, now(), &mut rng())
        .unwrap();
    let svid = X509Svid::new(issued.chain, leaf.key).unwrap();
    svid.validate(&ca.bundle().into(), now()).unwrap();
    let old_only = svid.validate(&before.into(), now()).unwrap_err();
    assert_eq!(
        old_only.reason(),
        "unknown_authority",
        "nobody cross-signed it"
    );

    let ca = reload(&ca.retire_issuing("issuing-1", now()).unwrap(), &keys);
    let error = ca.prepare_issuing(&keys, now(), &mut rng()).unwrap_err();
    assert!(error.to_string().contains("weft ca csr"), "{error}");
    assert_eq!(root.signed().len(), 1);
}

#[test]
fn a_chain_of_somebody_elses_with_an_intermediate_is_taken_in_any_order() {
    let (ca, keys, csr) = requested();
    let (root, middle, issuing) = foreign(&csr, |_| {});
    let all = [issuing, root, middle];
    let ca = reload(&import(&ca, &keys, &all).unwrap(), &keys);
    let ca = reload(&ca.activate_root("root-2", now()).unwrap(), &keys);
    let ca = reload(&ca.activate_issuing("issuing-2", now()).unwrap(), &keys);
    let leaf = make_csr(None).unwrap();
    let issued = ca
        .issue(&leaf.csr, &id(INVOICES), None, now(), &mut rng())
        .unwrap();
    assert_eq!(issued.chain.len(), 3, "leaf, issuing, intermediate");
    let svid = X509Svid::new(issued.chain, leaf.key).unwrap();
    svid.validate(&ca.bundle().into(), now()).unwrap();
}

/// Root, intermediate and issuing CA of an authority that is not weft's.
fn foreign(
    csr: &[u8],
    change: impl FnOnce(&mut CertificateParams),
) -> (
    CertificateDer<'static>,
    CertificateDer<'static>,
    CertificateDer<'static>,
) {
    let authority = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now() - days(1)).into();
        params.not_after = (now() + days(400)).into();
        params
    };
    let (root_key, middle_key) = (KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    let root: CertificateDer<'static> = authority("their root")
        .self_signed(&root_key)
        .unwrap()
        .into();
    let by_root = Issuer::from_ca_cert_der(&root, &root_key).unwrap();
    let middle: CertificateDer<'static> = authority("their intermediate")
        .signed_by(&middle_key, &by_root)
        .unwrap()
        .into();
    let by_middle = Issuer::from_ca_cert_der(&middle, &middle_key).unwrap();
    let key = crate::csr::verified_key(csr).unwrap();
    let mut params = authority("issuing for weft");
    change(&mut params);
    let issuing = params.signed_by(&key, &by_middle).unwrap().into();
    (root, middle, issuing)
}

#[test]
fn what_peers_would_refuse_is_not_imported() {
    let (ca, keys, csr) = requested();
    type Change = fn(&mut CertificateParams);
    let cases: [(Change, &str); 4] = [
        (|p| p.is_ca = IsCa::ExplicitNoCa, "would be refused"),
        (
            |p| p.key_usages = vec![KeyUsagePurpose::DigitalSignature],
            "would be refused",
        ),
        (
            |p| p.not_after = (now() + days(5)).into(),
            "less than 6 times",
        ),
        (
            |p| p.not_before = (now() + days(1)).into(),
            "would be refused",
        ),
    ];
    for (change, expected) in cases {
        let (root, middle, issuing) = foreign(&csr, change);
        let error = import(&ca, &keys, &[root, middle, issuing]).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    let (root, middle, issuing) = foreign(&csr, |_| {});
    let error = |all: &[CertificateDer<'static>]| import(&ca, &keys, all).unwrap_err().to_string();
    assert!(error(&[root.clone(), middle.clone()]).contains("none of them has the key"));
    assert!(error(&[issuing.clone(), root.clone()]).contains("do not lead to a root"));
    assert!(error(&[issuing.clone(), middle.clone()]).contains("do not lead to a root"));
    let broken = CertificateDer::from(vec![0x30, 0x00]);
    assert!(error(&[issuing.clone(), broken]).contains("not a certificate"));
    // A root of the same name and another key.
    let (other, _, _) = foreign(&csr, |_| {});
    assert!(error(&[issuing, middle, other]).contains("would be refused"));
}

#[test]
fn without_a_request_nothing_is_imported() {
    let (ca, keys, _) = authority();
    let (root, _) = offline();
    let error = import(&ca, &keys, &[root.certificate().clone()]).unwrap_err();
    assert!(error.to_string().contains("weft ca csr"), "{error}");
}

#[test]
fn an_offline_root_signs_only_for_who_holds_the_key_and_within_its_life() {
    let (_, _, csr) = requested();
    let (mut root, keys) = offline();
    let mut forged = csr.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut sign = |csr: &[u8], ttl| root.sign(csr, ttl, &keys, now(), &mut rng());
    assert!(matches!(sign(&forged, days(60)), Err(Error::Csr { .. })));
    assert!(matches!(
        sign(&csr, days(3650)),
        Err(Error::IssuerEnding { .. })
    ));
}

#[test]
fn a_second_request_takes_the_place_of_the_first() {
    let (ca, keys, _) = requested();
    let before = keys.names();
    let ca = reload(&ca.intend(Tier::Issuing, &mut rng()).unwrap(), &keys);
    let (journal, _) = ca.request_issuing(&keys, &mut rng()).unwrap();
    assert_eq!(keys.names().len(), before.len(), "the first key is gone");
    reload(&journal, &keys);
}
