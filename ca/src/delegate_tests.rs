#![allow(clippy::unwrap_used)]

use weft_certs::{BundleSet, SpiffeId, TrustDomain, Usage, X509Svid, verify_chain};

use super::*;
use crate::testing::{INVOICES, authority, config, days, hours, id, now, rng};
use crate::{MemoryKeyStore, make_csr};

const ORDERS: &str = "spiffe://weft.local/ns/paris/sa/orders";

fn site() -> Site {
    let domain = TrustDomain::parse("weft.local").unwrap();
    Site::new("paris", &domain, &["spiffe://weft.local/ns/paris/*"]).unwrap()
}

/// The delegate as it goes on from what the store holds.
fn delegate(ca: &Authority, keys: &MemoryKeyStore, ttl: Duration) -> Authority {
    let (own, key) = (MemoryKeyStore::new(), KeyId::new("delegate").unwrap());
    let request = delegate_request(&own, &key, KeyType::P256).unwrap();
    let certificate = ca
        .certify_delegate(&request, &site(), ttl, keys, now(), &mut rng())
        .unwrap();
    let root = &ca.journal().active(Tier::Root).unwrap().certificate;
    let journal = Journal::of_delegate(&ca.bundle(), root, certificate, &key, now()).unwrap();
    let text = serde_json::to_string(&journal).unwrap();
    Authority::load(config(), serde_json::from_str(&text).unwrap(), &own).unwrap()
}

fn issue(ca: &Authority, name: &SpiffeId, at: SystemTime) -> Result<crate::Issued, Error> {
    let request = make_csr(None).unwrap();
    ca.issue_reserved(&request.csr, name, None, at, &mut rng())
}

#[test]
fn a_delegate_issues_within_its_site_what_peers_accept() {
    let (ca, keys, mut rng) = authority();
    let delegate = delegate(&ca, &keys, days(7));
    let bundles = BundleSet::from(ca.bundle());
    assert_eq!(delegate.bundle(), ca.bundle());
    assert_eq!(delegate.pin().unwrap(), ca.pin().unwrap());
    let request = make_csr(None).unwrap();
    let issued = delegate
        .issue(&request.csr, &id(ORDERS), None, now(), &mut rng)
        .unwrap();
    assert_eq!(
        (issued.issuer.as_str(), issued.chain.len()),
        ("site-paris", 2)
    );
    let svid = X509Svid::new(issued.chain, request.key).unwrap();
    svid.validate(&bundles, now()).unwrap();
    // Itself too, and nobody else.
    let own = issue(&delegate, &site().delegate(), now()).unwrap();
    verify_chain(&own.chain, &bundles, now(), Usage::Server).unwrap();
    for other in [INVOICES, "spiffe://weft.local/ns/weft-system/sa/control"] {
        let error = issue(&delegate, &id(other), now()).unwrap_err();
        assert!(matches!(error, Error::OutsideSite { .. }), "{error}");
    }
}

#[test]
fn a_delegate_ends_at_its_time_or_with_the_root_and_issues_nothing_that_outlives_it() {
    let (ca, keys, _) = authority();
    let delegate_of = |ttl| delegate(&ca, &keys, ttl);
    let short = delegate_of(hours(1));
    let end = short.journal().active(Tier::Issuing).unwrap().not_after;
    assert_eq!(end, now() + hours(1));
    let leaf = issue(&short, &id(ORDERS), now() + Duration::from_secs(1800)).unwrap();
    assert!(leaf.not_after < end, "{leaf:?}");
    let late = issue(&short, &id(ORDERS), end);
    assert!(matches!(late, Err(Error::IssuerEnding { .. })), "{late:?}");

    for bad in [Duration::ZERO, Duration::from_secs(59), days(31)] {
        let request = make_csr(None).unwrap();
        let made = ca.certify_delegate(&request.csr, &site(), bad, &keys, now(), &mut rng());
        assert!(matches!(made, Err(Error::Lifetime { .. })), "{made:?}");
    }
    let root = ca.journal().active(Tier::Root).unwrap().not_after;
    let request = make_csr(None).unwrap();
    let at = root - days(2);
    let made = ca
        .certify_delegate(&request.csr, &site(), days(7), &keys, at, &mut rng())
        .unwrap();
    let (_, parsed) = parse_x509_certificate(&made).unwrap();
    assert!(from_unix(parsed.validity().not_after.timestamp()) < root);
    let made = ca.certify_delegate(&request.csr, &site(), days(7), &keys, root, &mut rng());
    assert!(matches!(made, Err(Error::IssuerEnding { .. })), "{made:?}");
}

#[test]
fn only_a_delegates_certificate_of_a_known_root_makes_a_delegate() {
    let (ca, _, _) = authority();
    let key = KeyId::new("delegate").unwrap();
    let root = &ca.journal().active(Tier::Root).unwrap().certificate;
    let issuing = ca
        .journal()
        .active(Tier::Issuing)
        .unwrap()
        .certificate
        .clone();
    let made = Journal::of_delegate(&ca.bundle(), root, issuing, &key, now());
    assert!(matches!(made, Err(Error::Import { .. })), "{made:?}");
}

#[test]
fn the_key_is_made_once_and_stays() {
    let (keys, key) = (MemoryKeyStore::new(), KeyId::new("delegate").unwrap());
    let first = delegate_request(&keys, &key, KeyType::P256).unwrap();
    let again = delegate_request(&keys, &key, KeyType::P256).unwrap();
    let spki = |request: &[u8]| {
        use rcgen::PublicKeyData;
        csr::verified_key(request).unwrap().der_bytes().to_vec()
    };
    assert_eq!(spki(&first), spki(&again));
}
