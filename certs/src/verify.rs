//! The one decision about trust: is this chain an identity, now, for this use.
//!
//! The order is that of X509-SVID §5: the leaf's own rules, the bundle of *its* trust domain, an RFC 5280 path
//! to a root of that bundle only; whether that identity is welcome comes last ([`verify_expected`]).

use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{BundleSet, RevocationList, SpiffeId, VerifyError, der};

/// Leaf, issuers and root of a chain; more is not a mesh's chain but an attempt to keep us busy.
const MAX_CHAIN: usize = 10;

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
    check_validity(
        &leaf.id,
        "certificate",
        leaf.not_before,
        leaf.not_after,
        now,
    )?;
    let check = PathCheck {
        id: &leaf.id,
        leaf: leaf_der,
        intermediates,
        now,
        usage,
        revoked: bundles.revoked(trust_domain),
    };
    check.to_roots(&bundle.roots)?;
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

/// RFC 5280 §4.1.2.5: both ends belong to the validity, in whole seconds.
fn check_validity(
    id: &SpiffeId,
    what: &'static str,
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
) -> Result<(), VerifyError> {
    if der::seconds(now) < der::seconds(not_before) {
        return Err(VerifyError::NotYetValid {
            id: id.clone(),
            what,
            not_before,
            now,
        });
    }
    if der::seconds(now) > der::seconds(not_after) {
        return Err(VerifyError::Expired {
            id: id.clone(),
            what,
            not_after,
            now,
        });
    }
    Ok(())
}

/// One search for a path.
struct PathCheck<'a> {
    id: &'a SpiffeId,
    leaf: &'a CertificateDer<'a>,
    intermediates: &'a [CertificateDer<'a>],
    now: SystemTime,
    usage: Usage,
    revoked: Option<&'a RevocationList>,
}

impl PathCheck<'_> {
    /// webpki does not look at the validity of a trust anchor; we do. Roots out of their time are left out, and
    /// looked at only to say that one of them is the cause.
    fn to_roots(&self, roots: &[CertificateDer<'static>]) -> Result<(), VerifyError> {
        let mut live = Vec::new();
        let mut dead = Vec::new();
        for root in roots {
            let Ok(certificate) = der::parse(root) else {
                continue;
            };
            let validity = certificate.validity();
            let (begin, end) = (
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            );
            match check_validity(
                self.id,
                "root",
                der::system_time(begin),
                der::system_time(end),
                self.now,
            ) {
                Ok(()) => live.push(root),
                Err(why) => dead.push((root, why)),
            }
        }
        match self.to_anchors(&live) {
            Err(unknown @ VerifyError::UnknownAuthority { .. }) => {
                let cause = dead
                    .into_iter()
                    .find(|(root, _)| self.to_anchors(&[root]).is_ok());
                Err(cause.map_or(unknown, |(_, why)| why))
            }
            other => other,
        }
    }

    fn to_anchors(&self, roots: &[&CertificateDer<'static>]) -> Result<(), VerifyError> {
        let anchors: Vec<_> = roots
            .iter()
            .filter_map(|root| anchor_from_trusted_cert(root).ok())
            .collect();
        let leaf = EndEntityCert::try_from(self.leaf).map_err(|e| VerifyError::BadCertificate {
            reason: e.to_string(),
        })?;
        let usage = match self.usage {
            Usage::Client => KeyUsage::client_auth(),
            Usage::Server => KeyUsage::server_auth(),
        };
        let time = UnixTime::since_unix_epoch(Duration::from_secs(der::seconds(self.now)));
        let algorithms = crate::tls::signature_algorithms().all;
        // `required_if_present` semantics: the leaf's purposes were checked with its own rules.
        leaf.verify_for_usage(
            algorithms,
            &anchors,
            self.intermediates,
            time,
            usage,
            None,
            Some(&|path: &webpki::VerifiedPath<'_>| check_path(path, self.revoked)),
        )
        .map(drop)
        .map_err(|e| self.explain(e))
    }

    fn explain(&self, error: webpki::Error) -> VerifyError {
        let id = self.id.clone();
        let (what, now) = ("issuer", self.now);
        let time = |t: UnixTime| der::system_time(i64::try_from(t.as_secs()).unwrap_or(i64::MAX));
        match error {
            webpki::Error::CertExpired { not_after, .. } => VerifyError::Expired {
                id,
                what,
                not_after: time(not_after),
                now,
            },
            webpki::Error::CertNotValidYet { not_before, .. } => VerifyError::NotYetValid {
                id,
                what,
                not_before: time(not_before),
                now,
            },
            webpki::Error::CertRevoked => VerifyError::Revoked {
                id,
                by: "issuer's key",
            },
            // Another authority of the same name, whose key is not the one we know, is an unknown one.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                VerifyError::UnknownAuthority { id }
            }
            other => VerifyError::BadChain {
                id,
                reason: other.to_string(),
            },
        }
    }
}

/// RFC 5280 §4.2.1.3: whoever issued a certificate of the path has keyCertSign. Nor may its key be revoked.
fn check_path(
    path: &webpki::VerifiedPath<'_>,
    revoked: Option<&RevocationList>,
) -> Result<(), webpki::Error> {
    for issuer in path.intermediate_certificates() {
        let der = issuer.der();
        let certificate = der::parse(&der).map_err(|_| webpki::Error::BadDer)?;
        der::check_issuer(&certificate).map_err(|_| webpki::Error::EndEntityUsedAsCa)?;
        let key = der::sha256(certificate.public_key().raw).into();
        if revoked.is_some_and(|list| list.has_key(&key)) {
            return Err(webpki::Error::CertRevoked);
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
