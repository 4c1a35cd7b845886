//! Whom do I trust: the roots of one trust domain, and the set of all that are known.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::{RootPin, TrustDomain};

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
}

impl TrustBundle {
    /// Whether one of the roots has the pinned key.
    pub fn has_pin(&self, pin: &RootPin) -> bool {
        self.roots.iter().any(|root| pin.matches(root))
    }
}

/// Trust bundles by trust domain. They are never merged: a leaf is checked against the bundle of its own domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BundleSet(BTreeMap<TrustDomain, Arc<TrustBundle>>);

impl BundleSet {
    /// An empty set, which trusts nobody.
    pub fn new() -> Self {
        Self::default()
    }

    /// The bundle of this trust domain.
    pub fn get(&self, trust_domain: &TrustDomain) -> Option<&TrustBundle> {
        self.0.get(trust_domain).map(Arc::as_ref)
    }

    /// Adds a bundle, in place of an earlier one of the same trust domain.
    pub fn insert(&mut self, bundle: TrustBundle) {
        self.0.insert(bundle.trust_domain.clone(), Arc::new(bundle));
    }

    /// All bundles, ordered by trust domain.
    pub fn iter(&self) -> impl Iterator<Item = &TrustBundle> {
        self.0.values().map(Arc::as_ref)
    }

    /// How many trust domains are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether no trust domain is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
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
