//! What the parts of one endpoint share.

use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use weft_certs::tls::{self, Failure};
use weft_certs::{Identity, IdentitySource, SpiffeId, VerifyError};
use weft_env::mutants::{Mutant, broken};
use weft_env::{Env, Tasks};

use crate::copies::Copies;
use crate::lifetime::{EndReason, Terms};
use crate::paths::{self, RoundTrips};
use crate::pool::{Key, PoolState};
use crate::quic::Quic;
use crate::refusal::Refusals;
use crate::registry::{Link, NewLink, Registry};
use crate::{Connection, DialError, Direction, Profile, Target, TransportConfig, dial};

/// How far an endpoint has come in holding its connections against the bundles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Enforced {
    /// Every connection has been verified against this generation of the bundles, or begun under it.
    pub bundle_generation: u64,
    /// Connections that were cut because the bundles no longer vouched for the peer, since the start.
    pub cut: u64,
}

/// An endpoint's inside.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) env: Env,
    pub(crate) config: TransportConfig,
    pub(crate) identity: Arc<IdentitySource>,
    pub(crate) quic: Quic,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) registry: Registry,
    pub(crate) pool: PoolState,
    pub(crate) refusals: Refusals,
    pub(crate) copies: Arc<Copies>,
    pub(crate) round_trips: RoundTrips,
    pub(crate) enforced: watch::Sender<Enforced>,
    pub(crate) tasks: Tasks,
    /// Places for handshakes that others begin.
    pub(crate) handshakes: Arc<Semaphore>,
    /// Cancelled when nothing new is taken or dialled.
    pub(crate) closing: CancellationToken,
}

impl Core {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// The HTTP/3 limits of every connection.
    pub(crate) fn h3(&self) -> weft_h3::Config {
        weft_h3::Config {
            max_field_section_size: self.config.limits.max_header_bytes,
            ..weft_h3::Config::default()
        }
    }

    /// The profile for a peer.
    pub(crate) fn profile(&self, peer: Option<&SpiffeId>) -> &Profile {
        let pinned = peer.and_then(|peer| self.config.pins.of(peer));
        pinned.unwrap_or(&self.config.profile)
    }

    /// Enters a connection whose handshake is done. `before` is the identity that the handshake began with:
    /// what changed since is made up for here, the warden sees to what changes from now on.
    pub(crate) fn enter(&self, new: NewLink, before: &Identity) -> Arc<Link> {
        let soon = new.terms.ends_soon(self.env.wall());
        let link = self.registry.add(new, soon);
        let now = self.identity.current();
        if now.bundle_generation != before.bundle_generation {
            self.verify(&link, &now);
        }
        if self.is_closing() {
            link.retire(EndReason::ShuttingDown);
        } else if now.generation != before.generation {
            link.retire(EndReason::OwnCertificateReplaced);
        }
        link
    }

    /// Cuts a connection whose peer the bundles no longer vouch for.
    pub(crate) fn verify(&self, link: &Link, identity: &Identity) {
        if let Err(error) = link.verify(&identity.bundles, self.env.wall()) {
            if matches!(error, VerifyError::Revoked { .. }) && broken(Mutant::ForgetsRevocation) {
                return;
            }
            tracing::warn!(
                connection = link.id,
                peer = %link.remote(),
                direction = %link.terms.direction,
                reason = error.reason(),
                "connection cut: {error}"
            );
            let reason = match error {
                VerifyError::Revoked { .. } => EndReason::PeerRevoked,
                _ => EndReason::PeerNotTrusted,
            };
            link.close(reason);
            self.enforced.send_modify(|enforced| enforced.cut += 1);
        }
    }

    /// One dial, from the first packet to a connection that the pool may hand out.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        target: &Target,
        key: Key,
    ) -> Result<Connection, DialError> {
        let addr = target.addr;
        let first = target
            .expected
            .first()
            .ok_or(DialError::NobodyExpected { addr })?;
        let before = self.identity.current();
        let failure = Failure::default();
        let pinned = self.config.pins.of_expected(&target.expected);
        let profile = pinned.unwrap_or(&self.config.profile);
        let rtt = self.round_trips.of(addr);
        paths::begin(self, profile.copying, addr);
        let (client, wheel) = self
            .quic
            .dial(target, profile, rtt, failure.clone())
            .map_err(|error| DialError::Failed {
                addr,
                cause: error.to_string(),
            })?;
        let patience = self.config.limits.dial_timeout;
        let quic = dial::connect(&self.endpoint, client, addr, first, &failure, patience).await?;
        let chain = dial::peer_chain(&quic);
        let peer =
            tls::peer_identity(&chain).map_err(|source| DialError::Unverified { addr, source })?;
        let terms = Terms {
            direction: Direction::Outbound,
            opened: self.env.wall(),
            generation: before.generation,
            own_not_after: Some(before.svid.not_after()),
            peer_not_after: Some(peer.not_after),
        };
        let (requests, driver) = weft_h3::client(quic.clone(), self.h3());
        let (counted, waited) = (requests.clone(), requests.clone());
        let active = Box::new(move || counted.active());
        let blocked = Box::new(move || waited.blocked());
        let new = NewLink {
            quic,
            peer: Some(peer),
            chain,
            terms,
            active,
            blocked,
            wheel,
            profile: profile.clone(),
        };
        let connection = Connection::new(self.enter(new, &before), requests);
        self.tasks
            .spawn(attend(self.clone(), connection.clone(), driver, key));
        Ok(connection)
    }
}

/// Looks after a connection that we dialled until it ends.
async fn attend(core: Arc<Core>, connection: Connection, driver: weft_h3::Driver, key: Key) {
    let link = connection.link();
    let token = core.tasks.token();
    let ending = async {
        tokio::select! {
            biased;
            () = connection.requests().going_away() => {
                link.retire(EndReason::PeerGoingAway);
            }
            () = link.retired.cancelled() => {}
        }
        link.load.settled().await;
        connection.requests().drained().await;
        link.close_retired();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        error = driver.run() => {
            tracing::debug!(connection = link.id, peer = %link.remote(), %error, "connection ended");
        }
        () = token.cancelled() => link.close(EndReason::ShuttingDown),
        () = ending => {}
    }
    core.registry.remove(link);
    let rejection = connection.rejection();
    if let Some(error) = &rejection {
        core.refusals.record(
            Direction::Outbound,
            link.remote(),
            error.reason(),
            error.to_string(),
        );
    }
    core.pool.ended(&key, link.id, rejection.as_ref());
}
