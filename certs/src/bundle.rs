//! Whom do I trust: the roots of one trust domain, and the set of all that are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::{JwtKey, RevocationList, RootPin, TrustDomain};

/// The roots of one trust domain, with the number of this edition.
///
/// A bundle without roots is legal and means: trust nobody of that domain any more (Trust Domain and Bundle §4).
/// Its text form is a JWK Set: [`TrustBundle::to_jwks`], [`TrustBundle::from_jwks`], or serde, which adds the
/// trust domain's name to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustBundle {
    /// Whose roots these are.
    pub trust_domain: TrustDomain,
    /// `spiffe_sequence`: grows with every change; the higher edition wins.
    pub sequence: u64,
    /// The roots, in DER.
    pub roots: Vec<CertificateDer<'static>>,
    /// The keys that JWT-SVIDs are signed with, also those that sign no more or not yet.
    pub jwt_keys: Vec<JwtKey>,
}

impl TrustBundle {
    /// Whether one of the roots has the pinned key.
    pub fn has_pin(&self, pin: &RootPin) -> bool {
        self.roots.iter().any(|root| pin.matches(root))
    }
}

/// Trust bundles by trust domain. They are never merged: a leaf is checked against the bundle of its own domain.
///
/// With each may stand a list of what is revoked, which [`verify_chain`](crate::verify_chain) heeds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleSet {
    bundles: BTreeMap<TrustDomain, Arc<TrustBundle>>,
    revoked: BTreeMap<TrustDomain, Arc<RevocationList>>,
}

impl BundleSet {
    /// An empty set, which trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bundle of this trust domain.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&TrustBundle> {
        self.bundles.get(trust_domain).map(Arc::as_ref)
    }

    /// Adds a bundle, in place of an earlier one of the same trust domain.
    pub fn insert(&mut self, bundle: TrustBundle) {
        self.bundles
            .insert(bundle.trust_domain.clone(), Arc::new(bundle));
    }

    /// What is revoked in this trust domain; `None` if nothing ever was.
    pub fn revoked(&self, trust_domain: &TrustDomain) -> Option<&RevocationList> {
        self.revoked.get(trust_domain).map(Arc::as_ref)
    }

    /// Sets what is revoked in a trust domain, in place of an earlier list.
    pub fn revoke(&mut self, trust_domain: TrustDomain, list: impl Into<Arc<RevocationList>>) {
        self.revoked.insert(trust_domain, list.into());
    }

    /// All lists of what is revoked, ordered by trust domain.
    pub fn revocations(&self) -> impl Iterator<Item = (&TrustDomain, &RevocationList)> {
        self.revoked
            .iter()
            .map(|(domain, list)| (domain, list.as_ref()))
    }

    /// The same roots with nothing revoked: for a node that looks at its own certificate, whose revocation must
    /// not keep it from learning about the others.
    #[must_use]
    pub fn without_revocations(&self) -> Self {
        Self {
            bundles: self.bundles.clone(),
            revoked: BTreeMap::new(),
        }
    }

    /// All bundles, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.bundles.values().map(Arc::as_ref)
    }

    /// How many trust domains are known.
    pub fn len(&self) -> usize {
        self.bundles.len()
    }

    /// Whether no trust domain is known.
    pub fn is_empty(&self) -> bool {
        self.bundles.is_empty()
    }
}

impl From<TrustBundle> for BundleSet {
    fn from(bundle: TrustBundle) -> Self {
        Self::from_iter([bundle])
    }
}

impl FromIterator<TrustBundle> for BundleSet {
    fn from_iter<I: IntoIterator<Item = TrustBundle>>(bundles: I) -> Self {
        let mut set = Self::new();
        bundles.into_iter().for_each(|bundle| set.insert(bundle));
        set
    }
}
