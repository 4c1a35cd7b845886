#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use rcgen::{IsCa, KeyPair};

use super::*;
use crate::testing::{Ca, INVOICES, id, now};

#[test]
fn an_svid_shows_what_it_is_and_not_its_key() {
    let root = Ca::root("weft.local");
    let svid = root.issuing().svid(INVOICES);
    assert_eq!(svid.id(), &id(INVOICES));
    assert_eq!(svid.chain().len(), 2);
    svid.validate(&root.bundles(), now()).unwrap();
    let shown = format!("{svid:?} {:?}", svid.private_key());
    assert!(
        shown.contains(INVOICES) && shown.contains("redacted"),
        "{shown}"
    );
    let secret = format!("{:?}", &svid.private_key().secret_der()[40..60]);
    assert!(!shown.contains(&secret[1..secret.len() - 1]), "{shown}");
}

#[test]
fn half_of_a_life_is_reckoned_from_the_issue_and_not_from_the_begin() {
    let svid = Ca::root("weft.local").issuing().svid(INVOICES);
    let issued = svid.not_before() + BACKDATED;
    assert_eq!(issued, now());
    let half = svid.not_after().duration_since(issued).unwrap() / 2;
    assert_eq!(svid.half_life(), half);
}

#[test]
fn pem_survives_a_round_trip() {
    let root = Ca::root("weft.local");
    let svid = root.issuing().svid_with_root(INVOICES, &root);
    let read = X509Svid::from_pem(&svid.to_pem()).unwrap();
    assert_eq!(read.chain(), svid.chain());
    assert_eq!(
        read.private_key().secret_der(),
        svid.private_key().secret_der()
    );
    assert_eq!(
        (read.serial(), read.not_after()),
        (svid.serial(), svid.not_after())
    );
    assert!(!svid.chain_pem().contains("PRIVATE KEY"));
}

#[test]
fn a_key_that_is_not_the_leafs_is_refused() {
    let chain = Ca::root("weft.local").chain(INVOICES);
    let other = KeyPair::generate().unwrap().serialize_der();
    let error = X509Svid::new(chain.clone(), other).unwrap_err();
    assert!(
        error.to_string().contains("not the key of the certificate"),
        "{error}"
    );
    let error = X509Svid::new(chain, vec![1, 2, 3]).unwrap_err();
    assert!(error.to_string().contains("not a PKCS#8 key"), "{error}");
}

#[test]
fn a_chain_that_is_no_svid_is_refused() {
    let root = Ca::root("weft.local");
    let (_, key) = root.leaf_with(INVOICES, |_| {});
    assert!(matches!(
        X509Svid::new(vec![], key.clone()),
        Err(Error::Svid(VerifyError::NoCertificate))
    ));
    assert!(matches!(
        X509Svid::new(vec![root.der.clone()], key),
        Err(Error::Svid(VerifyError::NotAnSvid { .. }))
    ));
    let no_ca = root.issuing_with(|p| p.is_ca = IsCa::ExplicitNoCa);
    let (chain, key) = no_ca.leaf_with(INVOICES, |_| {});
    assert!(matches!(
        X509Svid::new(chain, key),
        Err(Error::Svid(VerifyError::BadChain { .. }))
    ));
}

#[test]
fn pem_without_chain_or_key_says_what_is_missing() {
    let svid = Ca::root("weft.local").svid(INVOICES);
    let whole = svid.to_pem();
    let key = &whole[svid.chain_pem().len()..];
    let cases = [
        (String::new(), "no CERTIFICATE"),
        (svid.chain_pem(), "no PRIVATE KEY"),
        (key.to_owned(), "no CERTIFICATE"),
        (format!("{}{key}", *whole), "more than one PRIVATE KEY"),
        (svid.chain_pem().repeat(11), "more than 10"),
        (" ".repeat(300_000), "larger than"),
        (
            whole.replace("-----END", "-----FIN"),
            "PEM text cannot be read",
        ),
    ];
    for (text, expected) in cases {
        let error = X509Svid::from_pem(&text).unwrap_err().to_string();
        assert!(error.contains(expected), "expected {expected:?}: {error}");
    }
}

proptest! {
    #[test]
    fn pem_reading_never_panics(text in "\\PC*", body in "[A-Za-z0-9+/=\n]{0,200}") {
        let _ = X509Svid::from_pem(&text);
        let framed = format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n");
        let _ = X509Svid::from_pem(&framed);
    }

    #[test]
    fn certificate_reading_never_panics(flips in prop::collection::vec((0..600_usize, any::<u8>()), 1..6)) {
        let root = Ca::root("weft.local");
        let mut der = root.chain(INVOICES)[0].to_vec();
        for (at, byte) in flips {
            let at = at % der.len();
            der[at] = byte;
        }
        let _ = crate::verify_chain(&[der.into()], &root.bundles(), now(), Usage::Client);
    }
}
