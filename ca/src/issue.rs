//! Issuance policy (ca-ops §10): to whom, for how long, under what name.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use weft_certs::{RootPin, SpiffeId};

use crate::when::whole;
use crate::{CaConfig, Error, Slot};

/// The namespace of weft itself.
pub const RESERVED_NAMESPACE: &str = "weft-system";

/// What was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issued {
    /// To whom.
    pub id: SpiffeId,
    /// Leaf and issuing CA, in the order in which they are sent; behind them what leads to roots of before.
    pub chain: Vec<CertificateDer<'static>>,
    /// The root above them. The control node sends it along too, for joiners to check their pin against.
    pub root: CertificateDer<'static>,
    /// SHA-256 of the leaf's public key.
    pub key: RootPin,
    /// Serial number of the leaf, lower case hexadecimal.
    pub serial: String,
    /// Begin of the leaf.
    pub not_before: SystemTime,
    /// End of the leaf.
    pub not_after: SystemTime,
    /// The slot that signed it.
    pub issuer: String,
}

/// Whether an identity belongs to weft itself, so that no token may be made for it. Everything directly in a
/// namespace path `/ns/weft-system` counts, not only well-formed service IDs.
pub fn is_reserved(id: &SpiffeId) -> bool {
    let mut segments = id.path().split('/').skip(1);
    segments.next() == Some("ns") && segments.next() == Some(RESERVED_NAMESPACE)
}

/// The names that this authority may give.
pub(crate) fn check_identity(id: &SpiffeId, config: &CaConfig) -> Result<(), Error> {
    if *id.trust_domain() != config.trust_domain {
        return Err(Error::ForeignIdentity {
            id: id.clone(),
            trust_domain: config.trust_domain.clone(),
        });
    }
    match id.path().is_empty() {
        true => Err(Error::NotAWorkload { id: id.clone() }),
        false => Ok(()),
    }
}

/// The end of a leaf: what was asked for, within the limits, and before its issuer ends.
pub(crate) fn leaf_end(
    config: &CaConfig,
    issuer: &Slot,
    ttl: Option<Duration>,
    now: SystemTime,
) -> Result<SystemTime, Error> {
    let asked = ttl.unwrap_or(config.leaf_ttl);
    let (min, max) = (config.min_leaf_ttl, config.max_leaf_ttl);
    if !(min..=max).contains(&asked) {
        return Err(Error::Lifetime { asked, min, max });
    }
    let end = whole((now + asked).min(issuer.not_after - config.margin()));
    match end.duration_since(now) {
        // Whole seconds are cut off above: allow for one.
        Ok(left) if left + Duration::from_secs(1) > min => Ok(end),
        _ => Err(Error::IssuerEnding {
            issuer: issuer.id.clone(),
            not_after: issuer.not_after,
        }),
    }
}
