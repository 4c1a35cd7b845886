//! One node's place on the network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_env::{Env, Tasks};

use crate::copies::{Copied, Copies, CopySocket};
use crate::core::{Core, Enforced};
use crate::lifetime::EndReason;
use crate::pool::{Pool, PoolState};
use crate::quic::Quic;
use crate::refusal::{Refusal, Refusals};
use crate::registry::Registry;
use crate::{
    ConnectionStats, Direction, Handler, TransportConfig, TransportError, accept, copies, paths,
    warden,
};

/// How long the last packets of closed connections may take to be sent.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A UDP socket that dials peers and answers them. Clones are the same endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    core: Arc<Core>,
    local_addr: SocketAddr,
}

impl Endpoint {
    /// Opens the socket. It dials from now on, and answers from [`serve`](Self::serve) on. Its tasks belong
    /// to `tasks`, and end with it.
    ///
    /// # Errors
    /// When the address is in use or cannot be had, or the settings contradict each other.
    pub fn bind(config: TransportConfig, env: &Env, tasks: &Tasks) -> Result<Self, TransportError> {
        let quic = Quic::new(config.clone(), env)?;
        let socket = env.bind_udp(config.addr).map_err(TransportError::Bind)?;
        let local_addr = socket.local_addr().map_err(TransportError::Bind)?;
        let copies = Arc::new(Copies::default());
        let copying = Arc::new(CopySocket::new(socket.clone(), copies.clone()));
        let endpoint = quinn::Endpoint::new_with_abstract_socket(
            quic.endpoint(env)?,
            Some(quic.server()),
            copying,
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
            refusals: Refusals::new(env),
            copies: copies.clone(),
            enforced: watch::Sender::new(Enforced {
                bundle_generation: config.identity.current().bundle_generation,
                cut: 0,
            }),
            tasks: tasks.clone(),
            handshakes: Arc::new(Semaphore::new(config.limits.max_handshakes)),
            closing: CancellationToken::new(),
            config,
        });
        tasks.spawn_essential(
            "the watch over peers' identities",
            warden::watch(core.clone()),
        );
        tasks.spawn_essential("the watch over paths", paths::watch(core.clone()));
        let copy = copies::send(socket, copies, tasks.token());
        tasks.spawn_essential("the sender of copies", copy);
        Ok(Self { core, local_addr })
    }

    /// Where it can be reached: the port is that of the system's choice if none was asked for.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// Answers from now on. Call it once.
    pub fn serve(&self, handler: Arc<dyn Handler>) {
        self.core
            .tasks
            .spawn_essential("the mesh port", accept::accept(self.core.clone(), handler));
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
            .map(|link| link.stats())
            .collect()
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

    /// What was sent twice to protect the tail of lossy paths, since the start.
    #[must_use]
    pub fn copied(&self) -> Copied {
        self.core.copies.copied()
    }

    /// Tells how far the present bundles are enforced: a peer that they do not vouch for is refused from the moment
    /// they are in place, and has no connection left when this has their generation.
    #[must_use]
    pub fn enforced(&self) -> watch::Receiver<Enforced> {
        self.core.enforced.subscribe()
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
