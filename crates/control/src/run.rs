//! A control node from its start to its end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_ca::Tier;
use weft_env::{Env, Listener, Mode, Tasks};
use weft_transport::KeyExchange;

use crate::attest::Attestors;
use crate::audit::Audit;
use crate::delegate::{self, DelegateConfig, Upstream};
use crate::error::ControlError;
use crate::federation::{BundleEndpoint, Federations};
use crate::issue::{
    CaService, JoinRefusals, OwnIdentity, Rotations, Tokens, keep_own_svid, keep_own_trust, revive,
    upkeep,
};
use crate::keys::KeyAccess;
use crate::node::{Node, Refusals};
use crate::push::Feed;
use crate::registry::{DEFAULT_GRACE, Registry, keep_endpoints, restore};
use crate::settings::MeshSettings;
use crate::state::{self, InitConfig, Opened, StateDir};
use crate::time::unix_ms;
use crate::{VERSION, admin, federation, foreign, health, mesh};

/// What the tasks get to end by themselves, after the mesh is drained.
const STOP: Duration = Duration::from_secs(2);

/// Settings of one control node. [`ControlConfig::new`] gives the defaults.
#[derive(Debug, Clone)]
pub struct ControlConfig {
    /// Directory with store and keys. Mode 0700, one process.
    pub state_dir: PathBuf,
    /// UDP address on which sidecars reach it; port 0 lets the system choose.
    pub mesh_listen: SocketAddr,
    /// Address of `/metrics`, `/healthz` and `/readyz`; `None`: nowhere.
    pub metrics_listen: Option<SocketAddr>,
    /// A file to write once it serves; see [`ControlReady`].
    pub ready_file: Option<PathBuf>,
    /// Make a mesh with these settings if the directory has none yet. `None`: that is an error.
    pub init_if_missing: Option<InitConfig>,
    /// How long an endpoint stays after its sidecar's connection broke.
    pub grace: Duration,
    /// How long connections may take to end after a stop.
    pub drain_deadline: Duration,
    /// How the authority's keys are reached.
    pub keys: KeyAccess,
    /// Whether sidecars without post-quantum key exchange are let in.
    pub key_exchange: KeyExchange,
    /// Whether sidecars are answered on TCP too, on the port of the same number.
    pub tcp_fallback: bool,
    /// Where other meshes fetch this one's trust bundle; `None`: nowhere.
    pub bundle: Option<BundleEndpoint>,
    /// File that says who may join without a token; `None`: nobody.
    pub attest: Option<PathBuf>,
    /// File with the roots of another provider of identities in the mesh's trust domain, which are trusted beside its own;
    /// `None`: nobody else is.
    pub trust_bundle: Option<PathBuf>,
    /// Makes it the delegate of a site in place of a control node.
    pub delegate: Option<DelegateConfig>,
}

impl ControlConfig {
    fn wire(&self) -> mesh::Wire {
        mesh::Wire {
            key_exchange: self.key_exchange,
            tcp_fallback: self.tcp_fallback,
        }
    }

    /// A control node of this state directory on all addresses, UDP port 15008.
    #[must_use]
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self {
            state_dir: state_dir.into(),
            mesh_listen: SocketAddr::from(([0, 0, 0, 0], 15008)),
            metrics_listen: None,
            ready_file: None,
            init_if_missing: None,
            grace: DEFAULT_GRACE,
            drain_deadline: Duration::from_secs(5),
            keys: KeyAccess::default(),
            key_exchange: KeyExchange::Preferred,
            tcp_fallback: true,
            bundle: None,
            attest: None,
            trust_bundle: None,
            delegate: None,
        }
    }
}

/// Content of the ready file, as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlReady {
    /// Process id.
    pub pid: u32,
    /// Where sidecars reach it (UDP, and TCP where no UDP passes).
    pub mesh: SocketAddr,
    /// Where metrics are (TCP).
    pub metrics: Option<SocketAddr>,
    /// Where other meshes fetch the trust bundle (TCP).
    pub bundle: Option<SocketAddr>,
    /// The root's pin.
    pub pin: String,
    /// Trust domain of the mesh.
    pub trust_domain: String,
}

/// Runs a control node until `shutdown`, then stops in order: sidecars are told to go elsewhere, what is
/// under way may end within the drain deadline.
///
/// # Errors
/// [`ControlError`] if it cannot start (state is then as it was), or if a part that it needs breaks.
pub async fn run(
    env: &Env,
    config: ControlConfig,
    shutdown: CancellationToken,
) -> Result<(), ControlError> {
    let tasks = Tasks::new(env);
    // If this future is dropped, what it started ends too: the tasks keep each other's owners alive.
    let _end = tasks.token().drop_guard();
    let claimed = tokio::select! {
        biased;
        claimed = claim(env, &config, &tasks) => claimed,
        // A delegate that waits for its control node has nothing to drain.
        () = shutdown.cancelled() => {
            tasks.shutdown(STOP).await;
            return Ok(());
        }
    };
    let dir = match claimed {
        Ok(dir) => dir,
        Err(error) => {
            tasks.shutdown(STOP).await;
            return Err(error);
        }
    };
    if let Some(file) = config.ready_file.clone() {
        // A crash has left it: whoever waits for it waits for this node.
        let _ = env.disk(move |disk| disk.remove(&file)).await;
    }
    let started = start(env, &config, &dir, &tasks).await;
    let mesh = match started {
        Ok(mesh) => mesh,
        Err(error) => {
            tasks.shutdown(STOP).await;
            return Err(error);
        }
    };
    let outcome = tokio::select! {
        biased;
        () = shutdown.cancelled() => Ok(()),
        broken = tasks.broken() => Err(ControlError::from(broken)),
    };
    match &outcome {
        Ok(()) => tracing::info!("stopping"),
        Err(error) => tracing::error!(%error, "giving up"),
    }
    env.tell_supervisor("STOPPING=1");
    mesh.drain(config.drain_deadline).await;
    tasks.shutdown(STOP).await;
    if let Some(file) = config.ready_file {
        let _ = env.disk(move |disk| disk.remove(&file)).await;
    }
    drop(dir);
    tracing::info!("stopped");
    outcome
}

async fn claim(env: &Env, config: &ControlConfig, tasks: &Tasks) -> Result<StateDir, ControlError> {
    let (path, access) = (&config.state_dir, config.keys.clone());
    match &config.delegate {
        Some(delegate) => {
            let delegate = (delegate, config.wire());
            delegate::claim(env, tasks, path, access, delegate).await
        }
        None => {
            let missing = config.init_if_missing.as_ref();
            state::claim(env, path, missing, access).await
        }
    }
}

async fn start(
    env: &Env,
    config: &ControlConfig,
    dir: &StateDir,
    tasks: &Tasks,
) -> Result<mesh::Mesh, ControlError> {
    let Opened {
        store,
        keys,
        settings,
    } = dir.open(env).await?;
    let settings: MeshSettings = settings.ok_or_else(|| ControlError::NotInitialised {
        dir: dir.path.clone(),
    })?;
    if let (Some(site), None) = (&settings.site, &config.delegate) {
        let dir = dir.path.display();
        return Err(ControlError::NotADelegate {
            reason: format!(
                "{dir} is the state of the delegate of site {site}; run it with: weft delegate --state-dir {dir}"
            ),
        });
    }
    let attestors = Attestors::load(env, config.attest.as_deref()).await?;
    let audit = Audit::load(env, store.clone()).await?;
    let ca = CaService::load(env, store.clone(), keys, &settings, audit).await?;
    match &settings.site {
        Some(site) => check_delegate(&ca, site)?,
        None => revive(&ca).await?,
    }
    foreign::follow_once(env, &ca, config.trust_bundle.as_deref()).await?;
    let own = OwnIdentity::new(env, ca.clone(), settings.own_id()).await?;
    own.check()?;
    let reset_key = dir.reset_key(env).await?;
    let mesh = mesh::Mesh::bind(
        env,
        tasks,
        config.mesh_listen,
        own.source.clone(),
        reset_key,
        config.wire(),
    )
    .await?;
    let registry = Registry::new(config.grace, env.clock());
    restore(&registry, &*store, unix_ms(env.wall())).await?;
    let feed = Feed::load(&*store).await?;
    let rotations = Rotations::new(ca.clone(), own.clone(), registry.clone(), tasks.clone());
    let tokens = Tokens::new(ca.clone(), registry.clone());
    let join_refusals = Arc::new(JoinRefusals::default());
    let home = settings.trust_domain.clone();
    let federations = Federations::load(env, &*store, ca.clone(), home).await?;
    let node = Arc::new(Node {
        env: env.clone(),
        mesh_addr: mesh.local_addr(),
        refusals: refusals(mesh.refusals(), &join_refusals),
        handshakes: mesh.handshakes(),
        join_refusals,
        attestors,
        started: Instant::now(),
        settings,
        store,
        registry,
        feed,
        ca,
        own,
        rotations,
        tokens,
        federations,
    });
    let socket = env.listen_unix(&dir.socket()).await;
    let socket = socket.map_err(ControlError::Socket)?;
    let metrics = match config.metrics_listen {
        Some(addr) => Some(health::listen(env, addr).await?),
        None => None,
    };
    let bundle = match config.bundle.clone() {
        Some(bundle) => Some(federation::listen(env, bundle).await?),
        None => None,
    };
    spawn_parts(&node, tasks, config.grace, socket);
    if let Some(file) = config.trust_bundle.clone() {
        let keep = foreign::keep(env.clone(), node.ca.clone(), file, tasks.token());
        tasks.spawn_essential("the roots of another provider", keep);
    }
    if let Some(delegate) = &config.delegate {
        let upstream = Upstream {
            addresses: delegate.control.clone(),
            pool: mesh.pool(),
        };
        let keep = delegate::keep(node.clone(), upstream, tasks.token());
        tasks.spawn_essential("the link of the delegate to its control node", keep);
    }
    let metrics = metrics.map(|(listener, addr)| {
        let serve = health::serve(node.clone(), listener, tasks.clone());
        tasks.spawn_essential("the metrics port", serve);
        addr
    });
    tasks.spawn(federation::keep(node.federations.clone(), tasks.clone()));
    let bundle = bundle.map(|serving| {
        let addr = serving.addr;
        tasks.spawn(federation::serve(node.clone(), serving, tasks.clone()));
        addr
    });
    mesh.serve(node.clone());
    announce(&node, config, (metrics, bundle)).await?;
    Ok(mesh)
}

/// A delegate whose certificate has ended has nothing to show, and nobody to renew it.
fn check_delegate(ca: &CaService, site: &str) -> Result<(), ControlError> {
    let authority = ca.authority();
    let own = authority.journal().active(Tier::Issuing)?;
    match authority.can_sign(own, ca.wall()) {
        true => Ok(()),
        false => Err(ControlError::DelegateEnded {
            site: site.to_owned(),
            at: own.not_after,
        }),
    }
}

/// Those of peers and those of joiners.
fn refusals(peers: Refusals, joiners: &Arc<JoinRefusals>) -> Refusals {
    let joiners = Arc::clone(joiners);
    Arc::new(move || joiners.add_to(peers()))
}

/// Starts what runs for as long as the node does.
fn spawn_parts(node: &Arc<Node>, tasks: &Tasks, grace: Duration, socket: Listener) {
    let stop = || tasks.token();
    let follow = node.feed.clone().follow(node.store.clone(), stop());
    tasks.spawn_essential("the feed of pushes", follow);
    let endpoints = keep_endpoints(node.registry.clone(), node.store.clone(), stop());
    tasks.spawn_essential("the upkeep of endpoints", endpoints);
    let svid = keep_own_svid(node.own.clone(), stop());
    tasks.spawn_essential("the renewal of the node's own certificate", svid);
    let trust = keep_own_trust(node.own.clone(), stop());
    tasks.spawn_essential("the upkeep of the node's own trust", trust);
    match node.settings.site {
        // Its authority is renewed by the control node.
        Some(_) => {
            let upkeep = delegate::upkeep(node.clone(), stop());
            tasks.spawn_essential("the upkeep of the delegate", upkeep);
        }
        None => {
            let upkeep = upkeep(
                node.ca.clone(),
                node.rotations.clone(),
                grace,
                node.env.clone(),
                stop(),
            );
            tasks.spawn_essential("the upkeep of the authority", upkeep);
        }
    }
    let admin = admin::serve(node.clone(), socket, tasks.clone());
    tasks.spawn_essential("the admin socket", admin);
}

async fn announce(
    node: &Node,
    config: &ControlConfig,
    (metrics, bundle): (Option<SocketAddr>, Option<SocketAddr>),
) -> Result<(), ControlError> {
    let ready = ControlReady {
        pid: std::process::id(),
        mesh: node.mesh_addr,
        metrics,
        bundle,
        pin: node.ca.authority().pin()?.to_string(),
        trust_domain: node.settings.trust_domain.to_string(),
    };
    tracing::info!(
        version = VERSION, mesh = %ready.mesh, pin = ready.pin, revision = node.feed.revision(),
        "control node ready"
    );
    if let Some(file) = config.ready_file.clone() {
        let json = serde_json::to_vec(&ready).unwrap_or_default();
        let write = node
            .env
            .disk(move |disk| disk.write_atomic(&file, &json, Mode::Public));
        write.await.map_err(ControlError::ReadyFile)?;
    }
    node.env.tell_supervisor("READY=1");
    Ok(())
}
