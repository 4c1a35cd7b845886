//! What the parts of one endpoint share.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_certs::tls::{self, Failure};
use weft_certs::{CertificateDer, Identity, IdentitySource, PeerIdentity, SpiffeId, VerifyError};
use weft_env::mutants::{Mutant, broken};
use weft_env::{Env, Rng, Tasks};
use weft_h3::{Aside, Lending};

use crate::connection::Requests;
use crate::copies::Copies;
use crate::copy_socket::Salvage;
use crate::fallback::Fallback;
use crate::lifetime::{EndReason, Terms};
use crate::paths::{self, RoundTrips};
use crate::pool::{Key, PoolState};
use crate::quic::Quic;
use crate::race::{Won, race};
use crate::refusal::Refusals;
use crate::registry::{Link, NewLink, Registry};
use crate::steer::Wheel;
use crate::tally::Tally;
use crate::wire::Wire;
use crate::{
    Connection, Copying, DialError, Direction, Liveness, Profile, Target, TransportConfig, dial,
    probe, renewal, tcp,
};

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
    pub(crate) fallback: Mutex<(Fallback, Rng)>,
    pub(crate) refusals: Refusals,
    pub(crate) tally: Tally,
    pub(crate) copies: Arc<Copies>,
    pub(crate) salvage: Arc<Salvage>,
    pub(crate) round_trips: RoundTrips,
    /// For readers that stand still, of all connections.
    pub(crate) lending: Lending,
    pub(crate) enforced: watch::Sender<Enforced>,
    pub(crate) tasks: Tasks,
    /// Places for handshakes that others begin.
    pub(crate) handshakes: Arc<Semaphore>,
    /// Cancelled when nothing new is taken or dialled.
    pub(crate) closing: CancellationToken,
    /// Cancelled when another process takes what peers begin.
    pub(crate) leaving: CancellationToken,
}

impl Core {
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_cancelled()
    }

    /// The HTTP/3 limits of a connection with these windows.
    pub(crate) fn h3(&self, stream_window: u32, connection_window: u32) -> weft_h3::Config {
        weft_h3::Config {
            max_field_section_size: self.config.limits.max_header_bytes,
            windows: Some(weft_h3::Windows {
                stream: stream_window,
                connection: connection_window,
            }),
            parity: self.config.profile.copying != Copying::Never,
            ..weft_h3::Config::default()
        }
    }

    /// The profile for a peer.
    pub(crate) fn profile(&self, peer: Option<&SpiffeId>) -> &Profile {
        let pinned = peer.and_then(|peer| self.config.pins.of(peer));
        pinned.unwrap_or(&self.config.profile)
    }

    /// The same for whom we dial.
    fn profile_for(&self, target: &Target) -> &Profile {
        let pinned = self.config.pins.of_expected(&target.expected);
        pinned.unwrap_or(&self.config.profile)
    }

    /// Enters a connection whose handshake is done. `before` is the identity that the handshake began with:
    /// what changed since is made up for here, the warden sees to what changes from now on.
    pub(crate) fn enter(&self, new: NewLink, before: &Identity) -> Arc<Link> {
        let soon = new.terms.ends_soon(self.env.wall());
        let link = self.registry.add(new, soon);
        self.tally
            .count(link.terms.direction, link.negotiated.resumed);
        let now = self.identity.current();
        if now.bundle_generation != before.bundle_generation {
            self.verify(&link, &now);
        }
        if self.is_closing() {
            link.retire(EndReason::ShuttingDown);
        } else if self.leaving.is_cancelled() && link.terms.direction == Direction::Inbound {
            link.retire(EndReason::HandedOver);
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
            let in_doubt = !matches!(error, VerifyError::Revoked { .. })
                && link.may_show_another(Instant::now());
            if in_doubt {
                link.retire(EndReason::PeerNotTrusted);
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

    /// A place for a handshake that somebody begins; why not, if there is none.
    pub(crate) fn admit(&self) -> Result<OwnedSemaphorePermit, String> {
        let limits = &self.config.limits;
        if self.is_full() {
            let most = limits.max_connections;
            return Err(format!("there are {most} connections already"));
        }
        let place = self.handshakes.clone().try_acquire_owned();
        place.map_err(|_| format!("{} handshakes are under way", limits.max_handshakes))
    }

    pub(crate) fn is_full(&self) -> bool {
        let limits = &self.config.limits;
        self.registry.len() + self.handshakes_under_way() >= limits.max_connections
    }

    pub(crate) fn handshakes_under_way(&self) -> usize {
        let most = self.config.limits.max_handshakes;
        most.saturating_sub(self.handshakes.available_permits())
    }

    /// The memory of paths that let no UDP through, with a random number for it.
    pub(crate) fn fallback<T>(&self, act: impl FnOnce(&mut Fallback, u64) -> T) -> T {
        // Each change is one call that does not panic half way.
        let mut held = self.fallback.lock().unwrap_or_else(PoisonError::into_inner);
        let (fallback, rng) = &mut *held;
        let draw = rng.next_u64();
        act(fallback, draw)
    }

    /// One dial, from the first packet to a connection that the pool may hand out.
    pub(crate) async fn dial(
        self: &Arc<Self>,
        target: &Target,
        key: Key,
    ) -> Result<Connection, DialError> {
        if !self.config.fallback {
            let fresh = self.handshake_quic(target).await?;
            return Ok(self.establish(fresh, target, key));
        }
        let addr = target.addr;
        let plan = self.fallback(|paths, _| paths.plan(addr, Instant::now()));
        let (quic, tcp) = (self.handshake_quic(target), self.handshake_tcp(target));
        let fresh = match race(addr, plan, quic, tcp).await? {
            Won::Quic(fresh) => {
                self.fallback(|paths, _| paths.quic_won(addr, Instant::now()));
                fresh
            }
            Won::Tcp(fresh) => {
                self.fallback(|paths, _| paths.tcp_won(addr, Instant::now()));
                tracing::info!(peer = %addr, "no answer over UDP: HTTP/2 over TCP until UDP passes");
                fresh
            }
        };
        Ok(self.establish(fresh, target, key))
    }

    /// The dialling side's handshake over QUIC.
    pub(crate) async fn handshake_quic(&self, target: &Target) -> Result<Fresh, DialError> {
        let (addr, first) = (target.addr, first_expected(target)?);
        let (before, failure) = (self.identity.current(), Failure::default());
        let profile = self.profile_for(target);
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
        let h3 = self.h3(profile.stream_window, profile.connection_window);
        let (requests, driver) = weft_h3::client(quic.clone(), h3);
        let driver = driver.with_lending(self.lending.clone());
        Fresh::new(
            Wire::Quic(quic),
            chain,
            Requests::Quic(requests),
            Driver::Quic(driver),
            before,
            wheel,
        )
    }

    /// The same over TCP.
    async fn handshake_tcp(&self, target: &Target) -> Result<Fresh, DialError> {
        let (addr, first) = (target.addr, first_expected(target)?);
        let (before, failure) = (self.identity.current(), Failure::default());
        let tls = self
            .quic
            .dial_over_tcp(target.expected.clone(), failure.clone());
        let (profile, limits) = (self.profile_for(target), &self.config.limits);
        let dialled = tcp::dial(&self.env, tls, addr, first, &failure, profile, limits).await?;
        Fresh::over_tcp(dialled, before)
    }

    /// Makes a connection of a handshake that is done, and looks after it.
    pub(crate) fn establish(
        self: &Arc<Self>,
        fresh: Fresh,
        target: &Target,
        key: Key,
    ) -> Connection {
        let Fresh {
            wire,
            chain,
            peer,
            requests,
            driver,
            before,
            wheel,
        } = fresh;
        let terms = Terms {
            direction: Direction::Outbound,
            opened: self.env.wall(),
            generation: before.generation,
            own_not_after: Some(before.svid.not_after()),
            peer_not_after: Some(peer.not_after),
        };
        let new = NewLink {
            active: requests.counter(),
            wire,
            peer: Some(peer),
            chain,
            terms,
            flow: requests.flow(),
            wheel,
            profile: self.profile_for(target).clone(),
        };
        let connection = Connection::new(self.enter(new, &before), requests);
        let attended = attend(
            self.clone(),
            connection.clone(),
            driver,
            target.clone(),
            key,
        );
        self.tasks.spawn(attended);
        connection
    }
}

fn first_expected(target: &Target) -> Result<&SpiffeId, DialError> {
    let addr = target.addr;
    let first = target.expected.first();
    first.ok_or(DialError::NobodyExpected { addr })
}

/// A handshake that is done, with a peer that is verified.
pub(crate) struct Fresh {
    pub(crate) wire: Wire,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) peer: PeerIdentity,
    pub(crate) requests: Requests,
    pub(crate) driver: Driver,
    /// The identity that it began with.
    before: Arc<Identity>,
    wheel: Wheel,
}

impl Fresh {
    fn new(
        wire: Wire,
        chain: Arc<[CertificateDer<'static>]>,
        requests: Requests,
        driver: Driver,
        before: Arc<Identity>,
        wheel: Wheel,
    ) -> Result<Self, DialError> {
        let addr = wire.remote();
        let peer = tls::peer_identity(&chain);
        let peer = peer.map_err(|source| DialError::Unverified { addr, source })?;
        Ok(Self {
            wire,
            chain,
            peer,
            requests,
            driver,
            before,
            wheel,
        })
    }

    fn over_tcp(dialled: tcp::Dialled, before: Arc<Identity>) -> Result<Self, DialError> {
        let tcp::Dialled {
            wire,
            chain,
            requests,
            driver,
        } = dialled;
        let (requests, driver) = (Requests::Tcp(requests), Driver::Tcp(Box::new(driver)));
        // The kernel's congestion control carries it.
        let wheel = Wheel::default();
        Self::new(Wire::Tcp(wire), chain, requests, driver, before, wheel)
    }
}

/// What moves a connection's bytes.
pub(crate) enum Driver {
    Quic(weft_h3::Driver),
    Tcp(Box<tcp::Driver>),
}

impl Driver {
    /// With the messages that the peer sends beside its requests, where it can.
    fn with_aside(self) -> (Self, Option<Aside>) {
        match self {
            Self::Quic(driver) => {
                let (driver, aside) = driver.with_aside(renewal::STREAM_TYPE);
                (Self::Quic(driver), Some(aside))
            }
            Self::Tcp(_) => (self, None),
        }
    }

    /// Drives it to its end, and gives the reason.
    pub(crate) async fn run(self, liveness: Liveness) -> String {
        match self {
            Self::Quic(driver) => driver.run().await.to_string(),
            Self::Tcp(driver) => driver.run(liveness).await,
        }
    }
}

/// Looks after a connection that we dialled until it ends.
async fn attend(core: Arc<Core>, connection: Connection, driver: Driver, target: Target, key: Key) {
    let link = connection.link();
    let (driver, aside) = driver.with_aside();
    let token = core.tasks.token();
    let ending = async {
        tokio::select! {
            biased;
            () = connection.requests().going_away() => {
                link.retire(EndReason::PeerGoingAway);
            }
            () = link.retired.cancelled() => {}
            () = probe::back_to_quic(&core, link, &target, &key), if link.is_over_tcp() => {}
        }
        link.load.settled().await;
        connection.requests().drained().await;
        link.close_retired();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        error = driver.run(target.liveness) => {
            tracing::debug!(connection = link.id, peer = %link.remote(), %error, "connection ended");
        }
        () = token.cancelled() => link.close(EndReason::ShuttingDown),
        () = ending => {}
        () = renewal::keep(&core, link, aside) => {}
    }
    core.registry.remove(link);
    if link.wire.fell_silent() {
        core.fallback(|paths, _| paths.fell_silent(target.addr, Instant::now()));
    }
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
