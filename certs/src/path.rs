//! A path from a leaf to one of a set of roots (RFC 5280 §6), whoever the leaf is of.

use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, UnixTime};
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{RevocationList, SpiffeId, Usage, VerifyError, der};

/// Leaf, issuers and root of a chain; more is not a mesh's chain but an attempt to keep us busy.
pub(crate) const MAX_CHAIN: usize = 10;

/// Why there is no path. [`of`](Self::of) names whose it should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum PathError {
    Unreadable(String),
    UnknownAuthority,
    Bad(String),
    Expired {
        what: &'static str,
        not_after: SystemTime,
        now: SystemTime,
    },
    NotYetValid {
        what: &'static str,
        not_before: SystemTime,
        now: SystemTime,
    },
    RevokedIssuer,
}

impl PathError {
    /// The same of the leaf of an SVID.
    pub(crate) fn of(self, id: &SpiffeId) -> VerifyError {
        let id = id.clone();
        match self {
            Self::Unreadable(reason) => VerifyError::BadCertificate { reason },
            Self::UnknownAuthority => VerifyError::UnknownAuthority { id },
            Self::Bad(reason) => VerifyError::BadChain { id, reason },
            Self::Expired {
                what,
                not_after,
                now,
            } => VerifyError::Expired {
                id,
                what,
                not_after,
                now,
            },
            Self::NotYetValid {
                what,
                not_before,
                now,
            } => VerifyError::NotYetValid {
                id,
                what,
                not_before,
                now,
            },
            Self::RevokedIssuer => VerifyError::Revoked {
                id,
                by: "issuer's key",
            },
        }
    }
}

/// RFC 5280 §4.1.2.5: both ends belong to the validity, in whole seconds.
pub(crate) fn check_validity(
    what: &'static str,
    not_before: SystemTime,
    not_after: SystemTime,
    now: SystemTime,
) -> Result<(), PathError> {
    if der::seconds(now) < der::seconds(not_before) {
        return Err(PathError::NotYetValid {
            what,
            not_before,
            now,
        });
    }
    if der::seconds(now) > der::seconds(not_after) {
        return Err(PathError::Expired {
            what,
            not_after,
            now,
        });
    }
    Ok(())
}

/// One search for a path.
pub(crate) struct PathCheck<'a> {
    pub(crate) leaf: &'a CertificateDer<'a>,
    pub(crate) intermediates: &'a [CertificateDer<'a>],
    pub(crate) now: SystemTime,
    pub(crate) usage: Usage,
    pub(crate) revoked: Option<&'a RevocationList>,
}

impl PathCheck<'_> {
    /// webpki does not look at the validity of a trust anchor; we do. Roots out of their time are left out, and
    /// looked at only to say that one of them is the cause.
    pub(crate) fn to_roots(&self, roots: &[CertificateDer<'static>]) -> Result<(), PathError> {
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
            Err(PathError::UnknownAuthority) => {
                let cause = dead
                    .into_iter()
                    .find(|(root, _)| self.to_anchors(&[root]).is_ok());
                Err(cause.map_or(PathError::UnknownAuthority, |(_, why)| why))
            }
            other => other,
        }
    }

    pub(crate) fn to_anchors(&self, roots: &[&CertificateDer<'_>]) -> Result<(), PathError> {
        let anchors: Vec<_> = roots
            .iter()
            .filter_map(|root| anchor_from_trusted_cert(root).ok())
            .collect();
        let leaf =
            EndEntityCert::try_from(self.leaf).map_err(|e| PathError::Unreadable(e.to_string()))?;
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

    fn explain(&self, error: webpki::Error) -> PathError {
        let (what, now) = ("issuer", self.now);
        let time = |t: UnixTime| der::system_time(i64::try_from(t.as_secs()).unwrap_or(i64::MAX));
        match error {
            webpki::Error::CertExpired { not_after, .. } => PathError::Expired {
                what,
                not_after: time(not_after),
                now,
            },
            webpki::Error::CertNotValidYet { not_before, .. } => PathError::NotYetValid {
                what,
                not_before: time(not_before),
                now,
            },
            webpki::Error::CertRevoked => PathError::RevokedIssuer,
            // Another authority of the same name, whose key is not the one we know, is an unknown one.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                PathError::UnknownAuthority
            }
            other => PathError::Bad(other.to_string()),
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
