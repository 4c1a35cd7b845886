//! A small authority for tests: makes good certificates, and bad ones by changing one thing.
#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::{BundleSet, SpiffeId, TrustBundle, TrustDomain, X509Svid};

pub(crate) const INVOICES: &str = "spiffe://weft.local/ns/default/sa/invoices";
pub(crate) const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";

/// The present of the tests: 2027-01-15.
pub(crate) fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

pub(crate) fn hours(n: u64) -> Duration {
    Duration::from_secs(n * 3600)
}

pub(crate) fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

pub(crate) fn td(name: &str) -> TrustDomain {
    TrustDomain::parse(name).unwrap()
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// An authority of any tier.
pub(crate) struct Ca {
    pub(crate) der: CertificateDer<'static>,
    key: KeyPair,
    /// Issuers between a leaf and the root, nearest first.
    above: Vec<CertificateDer<'static>>,
}

impl Ca {
    pub(crate) fn root(trust_domain: &str) -> Self {
        Self::root_with(trust_domain, |_| {})
    }

    pub(crate) fn root_with(
        trust_domain: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params("root", trust_domain);
        change(&mut params);
        let der = params.self_signed(&key).unwrap().into();
        Self {
            der,
            key,
            above: Vec::new(),
        }
    }

    pub(crate) fn issuing(&self) -> Self {
        self.issuing_with(|_| {})
    }

    pub(crate) fn issuing_with(&self, change: impl FnOnce(&mut CertificateParams)) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = ca_params("issuing", "weft.local");
        change(&mut params);
        let der: CertificateDer<'static> = params.signed_by(&key, &self.issuer()).unwrap().into();
        let above = std::iter::once(der.clone())
            .chain(self.above.iter().cloned())
            .collect();
        Self { der, key, above }
    }

    fn issuer(&self) -> Issuer<'static, &KeyPair> {
        Issuer::from_ca_cert_der(&self.der, &self.key).unwrap()
    }

    pub(crate) fn bundle(&self, trust_domain: &str) -> TrustBundle {
        TrustBundle {
            trust_domain: td(trust_domain),
            sequence: 1,
            roots: vec![self.der.clone()],
            jwt_keys: Vec::new(),
        }
    }

    pub(crate) fn bundles(&self) -> BundleSet {
        self.bundle("weft.local").into()
    }

    /// A good leaf and its issuers, as a peer sends them.
    pub(crate) fn chain(&self, name: &str) -> Vec<CertificateDer<'static>> {
        self.chain_with(name, |_| {})
    }

    pub(crate) fn chain_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Vec<CertificateDer<'static>> {
        self.leaf_with(name, change).0
    }

    pub(crate) fn leaf_with(
        &self,
        name: &str,
        change: impl FnOnce(&mut CertificateParams),
    ) -> (Vec<CertificateDer<'static>>, Zeroizing<Vec<u8>>) {
        let key = KeyPair::generate().unwrap();
        let mut params = leaf_params(name);
        change(&mut params);
        let leaf = params.signed_by(&key, &self.issuer()).unwrap().into();
        let chain = std::iter::once(leaf)
            .chain(self.above.iter().cloned())
            .collect();
        (chain, key.serialize_der().into())
    }

    pub(crate) fn svid(&self, name: &str) -> X509Svid {
        let (chain, key) = self.leaf_with(name, |_| {});
        X509Svid::new(chain, key).unwrap()
    }

    /// As the control node has it: with the root behind the issuers.
    pub(crate) fn svid_with_root(&self, name: &str, root: &Ca) -> X509Svid {
        let (mut chain, key) = self.leaf_with(name, |_| {});
        chain.push(root.der.clone());
        X509Svid::new(chain, key).unwrap()
    }
}

fn ca_params(name: &str, trust_domain: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::CommonName, format!("{name} {trust_domain}"));
    params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now() - hours(24)).into();
    params.not_after = (now() + hours(24 * 30)).into();
    params
}

fn leaf_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![uri(name)];
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now() - Duration::from_secs(60)).into();
    params.not_after = (now() + hours(1)).into();
    params
}

/// keyUsage digitalSignature, not critical, which rcgen itself never writes.
pub(crate) fn lax_key_usage() -> CustomExtension {
    CustomExtension::from_oid_content(&[2, 5, 29, 15], vec![0x03, 0x02, 0x07, 0x80])
}

/// A URI name in an extension that is not critical, which rcgen never writes for an empty subject.
pub(crate) fn lax_san(name: &str) -> CustomExtension {
    let len = u8::try_from(name.len()).unwrap();
    let mut content = vec![0x30, len + 2, 0x86, len];
    content.extend(name.bytes());
    CustomExtension::from_oid_content(&[2, 5, 29, 17], content)
}
