//! The one decision about trust: is this chain an identity, now, for this use.
//!
//! The order is that of X509-SVID §5: the leaf's own rules, the bundle of *its* trust domain, an RFC 5280 path
//! to a root of that bundle only; whether that identity is welcome comes last ([`verify_expected`]). What a delegate has
//! issued is held against its list ([`Site`](crate::Site)) in place of that.

use std::collections::BTreeSet;
use std::fmt;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use crate::path::{MAX_CHAIN, PathCheck, check_validity};
use crate::{BundleSet, SpiffeId, VerifyError, delegate, der};

/// The role that the peer plays, which its certificate must allow (RFC 5280 §4.2.1.12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// The peer dialled us.
    Client,
    /// We dialled the peer.
    Server,
}

/// Who a peer has proven to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its SPIFFE ID.
    pub id: SpiffeId,
    /// Serial number of its leaf, lower case hexadecimal.
    pub serial: String,
    /// When the leaf ends; the connection must not outlive it.
    pub not_after: SystemTime,
    /// SHA-256 over the leaf's DER, lower case hexadecimal: `Hash` of `x-forwarded-client-cert`.
    pub fingerprint: String,
}

/// Which identities a dialled peer may have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExpectedPeer {
    /// Exactly this one.
    One(SpiffeId),
    /// Any of these. An empty set expects nobody.
    AnyOf(BTreeSet<SpiffeId>),
}

impl ExpectedPeer {
    /// Whether this identity is expected.
    pub fn contains(&self, id: &SpiffeId) -> bool {
        match self {
            Self::One(expected) => expected == id,
            Self::AnyOf(expected) => expected.contains(id),
        }
    }

    /// The first expected identity, which names the peer in the handshake. `None` if nobody is expected.
    pub fn first(&self) -> Option<&SpiffeId> {
        match self {
            Self::One(expected) => Some(expected),
            Self::AnyOf(expected) => expected.first(),
        }
    }
}

impl From<SpiffeId> for ExpectedPeer {
    fn from(id: SpiffeId) -> Self {
        Self::One(id)
    }
}

impl fmt::Display for ExpectedPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = match self {
            Self::One(id) => return fmt::Display::fmt(id, f),
            Self::AnyOf(all) => all,
        };
        match (all.first(), all.len()) {
            (None, _) => f.write_str("nobody"),
            (Some(id), 1) => fmt::Display::fmt(id, f),
            (Some(id), n) => write!(f, "one of {n} identities such as {id}"),
        }
    }
}

/// Checks a chain as a peer sent it (leaf first) against the bundles.
///
/// # Errors
/// The first rule that the chain breaks, in the order above.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    bundles: &BundleSet,
    now: SystemTime,
    usage: Usage,
) -> Result<PeerIdentity, VerifyError> {
    let (leaf_der, intermediates) = chain.split_first().ok_or(VerifyError::NoCertificate)?;
    let leaf = der::leaf(leaf_der)?;
    let trust_domain = leaf.id.trust_domain();
    let bundle = bundles
        .get(trust_domain)
        .ok_or_else(|| VerifyError::UnknownTrustDomain {
            id: leaf.id.clone(),
            trust_domain: trust_domain.clone(),
        })?;
    if chain.len() > MAX_CHAIN {
        return Err(VerifyError::BadChain {
            id: leaf.id,
            reason: format!("it has more than {MAX_CHAIN} certificates"),
        });
    }
    check_validity("certificate", leaf.not_before, leaf.not_after, now)
        .map_err(|why| why.of(&leaf.id))?;
    let check = PathCheck {
        leaf: leaf_der,
        intermediates,
        now,
        usage,
        revoked: bundles.revoked(trust_domain),
    };
    let path = match delegate::site_of(intermediates.first(), trust_domain) {
        Ok(None) => check.to_roots(&bundle.roots),
        Ok(Some(site)) => check.under_delegate(&site, &leaf.id, &bundle.roots),
        Err(why) => Err(why),
    };
    path.map_err(|why| why.of(&leaf.id))?;
    check_revoked(leaf_der, bundles)?;
    Ok(PeerIdentity {
        id: leaf.id,
        serial: leaf.serial,
        not_after: leaf.not_after,
        fingerprint: der::hex(&der::sha256(leaf_der)),
    })
}

/// Whether a leaf is revoked by its own name, key or serial number, whoever vouches for it.
///
/// # Errors
/// [`VerifyError::Revoked`]; or that it is no leaf.
pub fn check_revoked(leaf: &CertificateDer<'_>, bundles: &BundleSet) -> Result<(), VerifyError> {
    let leaf = der::leaf(leaf)?;
    let list = bundles.revoked(leaf.id.trust_domain());
    match list.and_then(|list| list.names(&leaf)) {
        Some(by) => Err(VerifyError::Revoked { id: leaf.id, by }),
        None => Ok(()),
    }
}

/// As [`verify_chain`] for a server that was dialled, and then that it is one of the expected.
///
/// # Errors
/// As [`verify_chain`], and [`VerifyError::WrongIdentity`].
pub fn verify_expected(
    chain: &[CertificateDer<'_>],
    bundles: &BundleSet,
    now: SystemTime,
    expected: &ExpectedPeer,
) -> Result<PeerIdentity, VerifyError> {
    let peer = verify_chain(chain, bundles, now, Usage::Server)?;
    match expected.contains(&peer.id) {
        true => Ok(peer),
        false => Err(VerifyError::WrongIdentity {
            expected: expected.to_string(),
            presented: peer.id,
        }),
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
