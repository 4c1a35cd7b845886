#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rcgen::{BasicConstraints, CustomExtension, IsCa, KeyPair, KeyUsagePurpose};

use super::*;
use crate::testing::{INVOICES, id};

fn reason(csr: &[u8]) -> String {
    match verified_key(csr) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_request_proves_possession_of_its_key() {
    let request = make_csr(Some(&id(INVOICES))).unwrap();
    let key = SoftKey::from_pkcs8(request.key.clone()).unwrap();
    assert_eq!(
        verified_key(&request.csr).unwrap().der_bytes(),
        key.der_bytes()
    );
    assert!(
        !format!("{request:?}").contains("48"),
        "Debug shows no bytes"
    );
    assert_ne!(
        make_csr(None).unwrap().key,
        make_csr(None).unwrap().key,
        "each request has a key of its own"
    );
}

#[test]
fn a_request_signed_with_another_key_is_refused() {
    let mut csr = make_csr(None).unwrap().csr;
    let at = csr.len() - 5;
    csr[at] ^= 1;
    assert!(
        reason(&csr).contains("does not prove possession"),
        "{}",
        reason(&csr)
    );

    // Someone else's public key in a request of one's own.
    let (mine, theirs) = (make_csr(None).unwrap(), make_csr(None).unwrap());
    let point = |csr: &NewKey| {
        SoftKey::from_pkcs8(csr.key.clone())
            .unwrap()
            .der_bytes()
            .to_vec()
    };
    let (my_point, their_point) = (point(&mine), point(&theirs));
    let at = mine
        .csr
        .windows(65)
        .position(|window| window == my_point)
        .unwrap();
    let mut swapped = mine.csr.clone();
    swapped[at..at + 65].copy_from_slice(&their_point);
    assert!(
        reason(&swapped).contains("does not prove possession"),
        "{}",
        reason(&swapped)
    );
}

#[test]
fn keys_of_other_kinds_are_not_certified() {
    for algorithm in [&rcgen::PKCS_ECDSA_P521_SHA512, &rcgen::PKCS_RSA_SHA256] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let csr = CertificateParams::default()
            .serialize_request(&key)
            .unwrap();
        assert!(
            reason(csr.der()).contains("not a P-256, P-384 or Ed25519 key"),
            "{}",
            reason(csr.der())
        );
    }
}

#[test]
fn whatever_a_request_asks_for_does_not_matter() {
    let key = SoftKey::generate(KeyType::P256).unwrap();
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.custom_extensions = vec![CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0])];
    let csr = params.serialize_request(&key).unwrap();
    assert_eq!(
        verified_key(csr.der()).unwrap().der_bytes(),
        key.der_bytes()
    );
}

#[test]
fn what_is_no_request_is_refused() {
    let csr = make_csr(None).unwrap().csr;
    assert!(reason(&[]).contains("not a PKCS #10 request"));
    assert!(reason(&[csr.clone(), vec![0]].concat()).contains("bytes behind it"));
    assert!(reason(&vec![0; MAX_CSR + 1]).contains("larger than"));
    assert!(reason(&csr[..csr.len() - 1]).contains("not a PKCS #10 request"));
}

proptest! {
    /// The parser is lax about some tags of the envelope (RFC 2986 §4.2), which is not signed; what is, is exact.
    #[test]
    fn reading_never_panics_and_what_is_signed_cannot_be_changed(at in 0..400_usize, byte in any::<u8>()) {
        let csr = make_csr(None).unwrap().csr;
        let key = verified_key(&csr).unwrap();
        let signed = csr.windows(65).position(|window| window == key.der_bytes()).unwrap() + 65 + 2;
        let signed = 3..signed; // behind the outer tag and its two bytes of length
        let mut changed = csr.clone();
        let at = at % changed.len();
        changed[at] = byte;
        if let Ok(accepted) = verified_key(&changed) {
            prop_assert_eq!(accepted.der_bytes(), key.der_bytes());
            prop_assert!(!signed.contains(&at) || changed == csr, "byte {} became {}", at, byte);
        }
    }

    #[test]
    fn reading_noise_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = verified_key(&bytes);
    }
}
