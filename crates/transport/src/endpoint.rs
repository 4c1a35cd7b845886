//! One node's place on the network.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use weft_env::{Env, Listener, Tasks};
use weft_h3::Lending;

use crate::copies::{Copied, Copies};
use crate::copy_socket::{self, CopySocket, Salvage};
use crate::core::{Core, Enforced};
use crate::fallback::Fallback;
use crate::lifetime::EndReason;
use crate::paths::{self, RoundTrips};
use crate::pool::{Pool, PoolState};
use crate::quic::Quic;
use crate::refusal::{Refusal, Refusals};
use crate::registry::{Link, Registry};
use crate::tally::Tally;
use crate::{
    ConnectionStats, Direction, FallbackStats, Handler, TransportConfig, TransportError, accept,
    tcp, warden,
};

/// How long the last packets of closed connections may take to be sent.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Times that a port of the system's choice may be taken by another on UDP.
const CHOICES: usize = 32;

/// A UDP socket that dials peers and answers them, and for those whom no UDP reaches a TCP socket beside it. Clones
/// are the same endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    core: Arc<Core>,
    local_addr: SocketAddr,
    /// Until it is served; `None` where the fallback is switched off.
    listener: Arc<Mutex<Option<Arc<Listener>>>>,
}

impl Endpoint {
    /// Opens the sockets. It dials from now on, and answers from [`serve`](Self::serve) on. Its tasks belong
    /// to `tasks`, and end with it.
    ///
    /// # Errors
    /// When the address is in use or cannot be had, or the settings contradict each other.
    pub async fn bind(
        config: TransportConfig,
        env: &Env,
        tasks: &Tasks,
    ) -> Result<Self, TransportError> {
        let quic = Quic::new(config.clone(), env)?;
        let (socket, listener) = sockets(&config, env).await.map_err(TransportError::Bind)?;
        let local_addr = socket.local_addr().map_err(TransportError::Bind)?;
        let copies = Arc::new(Copies::default());
        let salvage = Arc::new(Salvage::default());
        let copying = CopySocket::new(socket.clone(), copies.clone(), salvage.clone());
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quic.endpoint(env)?,
            Some(quic.server()),
            Arc::new(copying),
            env.quinn_runtime(),
        )
        .map_err(TransportError::Bind)?;
        let core = Arc::new(Core {
            env: env.clone(),
            identity: config.identity.clone(),
            quic,
            endpoint,
            registry: Registry::default(),
            pool: PoolState::new(&config.limits, env.rng("dial-backoff")),
            fallback: Mutex::new((
                Fallback::new(config.limits.max_remembered_failures),
                env.rng("fallback-probe"),
            )),
            refusals: Refusals::new(env),
            tally: Tally::default(),
            copies: copies.clone(),
            salvage,
            round_trips: RoundTrips::default(),
            lending: Lending::new(config.limits.max_lent),
            enforced: watch::Sender::new(Enforced {
                bundle_generation: config.identity.current().bundle_generation,
                cut: 0,
            }),
            tasks: tasks.clone(),
            handshakes: Arc::new(Semaphore::new(config.limits.max_handshakes)),
            closing: CancellationToken::new(),
            leaving: CancellationToken::new(),
            config,
        });
        tasks.spawn_essential(
            "the watch over peers' identities",
            warden::watch(core.clone()),
        );
        tasks.spawn_essential("the watch over paths", paths::watch(core.clone()));
        let copy = copy_socket::send(socket, copies, tasks.token());
        tasks.spawn_essential("the sender of copies", copy);
        Ok(Self {
            core,
            local_addr,
            listener: Arc::new(Mutex::new(listener)),
        })
    }

    /// Where it can be reached: the port is that of the system's choice if none was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers from now on. Call it once.
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        let tasks = &self.core.tasks;
        let listener = self.listener.lock();
        let listener = listener.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(listener) = listener {
            let (core, handler) = (self.core.clone(), handler.clone());
            let accept = tcp::accept(core, listener, handler);
            tasks.spawn_essential("the mesh port over TCP", accept);
        }
        tasks.spawn_essential("the mesh port", accept::accept(self.core.clone(), handler));
    }

    /// The connections that it dials.
    #[must_use]
    pub fn pool(&self) -> Pool {
        Pool::new(self.core.clone())
    }

    /// All live connections, both ways.
    #[must_use]
    pub fn connections(&self) -> Vec<ConnectionStats> {
        self.core
            .registry
            .all()
            .iter()
            .map(|link| self.stats_of(link))
            .collect()
    }

    fn stats_of(&self, link: &Link) -> ConnectionStats {
        let remote = link.remote();
        ConnectionStats {
            copying: self.core.copies.is_protected(remote, Instant::now()),
            ..link.stats()
        }
    }

    /// Handshakes that became connections, by who dialled and kind (`full`, `resumed`), since the start. Over TCP all
    /// are full.
    #[must_use]
    pub fn handshakes(&self) -> BTreeMap<(Direction, &'static str), u64> {
        self.core.tally.counts()
    }

    /// Sessions in memory that may be resumed: as the dialling side, as the accepting side.
    #[must_use]
    pub fn sessions(&self) -> (usize, usize) {
        self.core.quic.sessions()
    }

    /// Connections that did not come to be, by reason, since the start.
    #[must_use]
    pub fn refusals(&self) -> BTreeMap<&'static str, u64> {
        self.core.refusals.totals()
    }

    /// The same, told apart by who dialled.
    #[must_use]
    pub fn refusals_by_direction(&self) -> BTreeMap<(Direction, &'static str), u64> {
        self.core.refusals.counts()
    }

    /// The last few of them, oldest first.
    #[must_use]
    pub fn recent_refusals(&self) -> Vec<Refusal> {
        self.core.refusals.recent()
    }

    /// Dials that went around blocked UDP, and came back, since the start.
    #[must_use]
    pub fn fallback(&self) -> FallbackStats {
        let core = &self.core;
        core.fallback(|paths, _| paths.stats(tokio::time::Instant::now()))
    }

    /// What was done to protect the tail of lossy paths, since the start.
    #[must_use]
    pub fn copied(&self) -> Copied {
        Copied {
            made: self.core.salvage.made(),
            ..self.core.copies.copied()
        }
    }

    /// Tells how far the present bundles are enforced: a peer that they do not vouch for is refused from the moment
    /// they are in place, and has no connection left when this has their generation.
    #[must_use]
    pub fn enforced(&self) -> watch::Receiver<Enforced> {
        self.core.enforced.subscribe()
    }

    /// Leaves what peers begin to another process that has taken the socket over: those that are connected are told
    /// to connect again, and what is under way goes on. Own requests go on too, until [`drain`](Self::drain).
    pub fn leave(&self) {
        let core = &self.core;
        core.leaving.cancel();
        for link in core.registry.all() {
            if link.terms.direction == Direction::Inbound {
                link.retire(EndReason::HandedOver);
            }
        }
    }

    /// Ends in order: nothing new is taken or dialled, peers are told to go elsewhere, what is under way may
    /// end within `deadline`, the rest is cut. The endpoint is of no use afterwards.
    pub async fn drain(&self, deadline: Duration) {
        let core = &self.core;
        core.closing.cancel();
        core.endpoint.set_server_config(None);
        for link in core.registry.all() {
            link.retire(EndReason::ShuttingDown);
        }
        if timeout(deadline, core.registry.empty()).await.is_err() {
            for link in core.registry.all() {
                link.close(EndReason::ShuttingDown);
            }
        }
        // H3_NO_ERROR (RFC 9114 §8.1).
        core.endpoint
            .close(VarInt::from_u32(0x100), b"the node is shutting down");
        // The peers learn of it by themselves, only later, if this takes too long.
        let _ = timeout(LAST_WORDS, core.endpoint.wait_idle()).await;
    }
}

/// Both sockets of a node, on one port.
async fn sockets(config: &TransportConfig, env: &Env) -> io::Result<Sockets> {
    if let Some(relay) = &config.relay {
        let listener = relay.listener().filter(|_| config.fallback);
        return Ok((relay.socket(), listener));
    }
    if !config.fallback {
        return Ok((env.bind_udp(config.addr)?, None));
    }
    let (udp, tcp) = beside(env, config.addr, |at| env.bind_udp(at)).await?;
    Ok((udp, Some(tcp)))
}

/// A listener of TCP, and a socket of UDP on its port.
pub(crate) async fn beside<U>(
    env: &Env,
    addr: SocketAddr,
    bind: impl Fn(SocketAddr) -> io::Result<U>,
) -> io::Result<(U, Arc<Listener>)> {
    let mut choices = 1;
    loop {
        // TCP first: its ports are the scarce ones, since each connection of late keeps one for a minute.
        let tcp = env.listen(addr).await?;
        match bind(tcp.local_addr()?) {
            Ok(udp) => return Ok((udp, Arc::new(tcp))),
            // Somebody else has this port of UDP: the system chooses another one.
            Err(_) if addr.port() == 0 && choices < CHOICES => choices += 1,
            Err(error) => return Err(error),
        }
    }
}

type Sockets = (Arc<dyn quinn::AsyncUdpSocket>, Option<Arc<Listener>>);
