//! Sessions that may be resumed (RFC 8446 §2.2), and the check without which none is.
//!
//! A resumed handshake shows no certificate: rustls takes the peer's chain from the session and asks no verifier. So
//! two things hold here. A session is in memory only while nothing has changed that it was made under
//! ([`Epoch`]), and for an hour at most; and whoever runs a handshake must ask [`Recheck`], which verifies the
//! chain of a resumed one as if it had just been shown.

mod client;
mod memory;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CommonState, HandshakeKind};

pub use client::ClientSessions;
pub use server::ServerSessions;

use crate::{Clock, Identity, VerifyError};

/// A session is good for no longer than this, whatever its certificates say.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a session was made under: the own SVID and the bundles, revocation lists included. A session of another epoch
/// is never resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Epoch {
    svid: u64,
    bundles: u64,
}

impl Epoch {
    fn of(identity: &Identity) -> Self {
        Self {
            svid: identity.generation,
            bundles: identity.bundle_generation,
        }
    }
}

/// When a session that is made now ends: with the first of both certificates, and after an hour.
fn end_of(own: &Identity, peer_not_after: SystemTime, now: SystemTime) -> SystemTime {
    let ends = [own.svid.not_after(), peer_not_after];
    ends.into_iter().fold(now + LONGEST, SystemTime::min)
}

/// A config whose handshakes may resume an earlier one, and the check that then takes the place of the verifier.
///
/// Whoever drives a connection of this config must call [`Recheck::check`] after every message that it reads, and end
/// the connection if it fails.
#[derive(Debug)]
pub struct Resumable<C> {
    /// For one connection.
    pub config: C,
    /// For the same connection.
    pub recheck: Recheck,
}

impl<C> Resumable<C> {
    /// A config that resumes nothing; if it did so in spite of that, the connection would end.
    pub fn never(config: C) -> Self {
        Self {
            config,
            recheck: Recheck(None),
        }
    }
}

type Verify = dyn Fn(&[CertificateDer<'_>]) -> Result<(), VerifyError> + Send + Sync;

/// Verifies the peer of a resumed handshake by the bundles, the revocation list and the clock of this moment.
#[derive(Clone)]
pub struct Recheck(Option<Arc<Verify>>);

/// Why a resumed handshake must end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The alert that a full handshake would have ended with.
    pub alert: AlertDescription,
    /// The rule that the peer breaks.
    pub error: VerifyError,
}

impl Recheck {
    fn by(
        verify: impl Fn(&[CertificateDer<'_>]) -> Result<(), VerifyError> + Send + Sync + 'static,
    ) -> Self {
        Self(Some(Arc::new(verify)))
    }

    /// Looks at a handshake as far as it has come. True once there is nothing left to check: the handshake was
    /// resumed and its peer is good. A full handshake has asked the verifier.
    ///
    /// # Errors
    /// The peer is not, or no longer, whom the verifier would let through.
    pub fn check(&self, tls: &CommonState) -> Result<bool, Refused> {
        if tls.handshake_kind() != Some(HandshakeKind::Resumed) {
            return Ok(false);
        }
        let chain = tls.peer_certificates().unwrap_or_default();
        let verdict = match (&self.0, chain) {
            (None, _) | (_, []) => Err(VerifyError::NoCertificate),
            (Some(verify), chain) => verify(chain),
        };
        verdict.map(|()| true).map_err(|error| Refused {
            alert: super::alert(&error),
            error,
        })
    }
}

impl fmt::Debug for Recheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recheck").field(&self.0.is_some()).finish()
    }
}

/// The time of a node; wraps a [`Clock`] to have `Debug`.
#[derive(Clone)]
struct Time(Clock);

impl Time {
    fn now(&self) -> SystemTime {
        (self.0)()
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

#[cfg(test)]
#[path = "../../resumption_tests.rs"]
mod tests;
