//! A sidecar from its start to its end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use weft_certs::{BundleSet, IdentitySource, X509Svid};
use weft_env::{Env, Listener, Tasks};
use weft_resources::ServiceName;
use weft_telemetry::{Direction, Side, Telemetry};
use weft_transport::{Connection, Direction as Dialler, Endpoint, TransportConfig};
use weft_wire::{Hello, PROTOCOL, PortRecord};
use weft_workload::{Entry, Workload, WorkloadSocket};

use crate::admin::{self, Readiness};
use crate::config::SidecarConfig;
use crate::control_client::{Applier, ControlClient};
use crate::identity::Renewal;
use crate::inbound::Inbound;
use crate::node::{Node, Parts};
use crate::outbound::{self, ports::Ports};
use crate::ready::Ready;
use crate::state_dir::{Saved, StateDir};
use crate::tokens::ControlTokens;
use crate::{Error, VERSION, bootstrap, settings};

/// What has been told to end gets this long before it is ended.
const GRACE: Duration = Duration::from_secs(1);
/// How often gauges follow what they show.
const VITALS: Duration = Duration::from_secs(1);
/// Wishes of a control node that wait; they all mean the same.
const WISHES: usize = 1;

/// Runs a sidecar until `shutdown`, then stops in order: the mesh and the application are told to go
/// elsewhere, what is under way may end within the drain deadline.
///
/// On its first start it joins the mesh with a token; later it starts from what it saved, also while no
/// control node can be reached. Without a snapshot, saved or pushed, it serves nothing and says why.
///
/// # Errors
/// [`Error`] if it cannot start, or if a part that it needs breaks: one sentence with the cause and the next step.
pub async fn run(
    env: &Env,
    config: SidecarConfig,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let backends = settings::check(&config)?;
    let tasks = Tasks::new(env);
    // If this future is dropped, what it started ends too: the tasks keep each other's owners alive.
    let _end = tasks.token().drop_guard();
    let started = tokio::select! {
        biased;
        started = start(env, &config, backends, &tasks) => Some(started),
        // While it joins, there is nothing to drain.
        () = shutdown.cancelled() => None,
    };
    let outcome = match started {
        None => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(sidecar)) => sidecar.serve(env, &config, shutdown, &tasks).await,
    };
    tasks.shutdown(GRACE).await;
    if let (Some(file), Ok(())) = (config.ready_file, &outcome) {
        let _ = env.disk(move |disk| disk.remove(&file)).await;
    }
    outcome
}

/// The doors of the own application. They are opened first, with the metrics port: one in use must not cost a
/// token.
struct Sockets {
    outbound: Listener,
    tcp: Vec<(Listener, settings::Backend)>,
    workload: Option<(WorkloadSocket, Vec<Entry>)>,
}

/// A sidecar whose parts run.
struct Sidecar {
    node: Arc<Node>,
    endpoint: Endpoint,
    ready: Ready,
    /// Ends the link to the control plane, with a goodbye.
    leave: CancellationToken,
    linked: tokio::task::JoinHandle<()>,
    /// Owner of what runs beside the traffic, which would end with it.
    _background: Tasks,
}

/// What there is once the sidecar has an identity.
struct Begun {
    saved: Saved,
    sockets: Sockets,
    telemetry: Telemetry,
    readiness: Readiness,
    metrics: SocketAddr,
    svid: X509Svid,
    bundles: BundleSet,
}

/// All that fails for reasons outside of the mesh, and the joining.
async fn begin(
    env: &Env,
    config: &SidecarConfig,
    backends: Vec<settings::Backend>,
    tasks: &Tasks,
    state: &StateDir,
) -> Result<Begun, Error> {
    if let Some(file) = config.ready_file.clone() {
        // A crash has left it: whoever waits for it waits for this sidecar.
        let _ = env.disk(move |disk| disk.remove(&file)).await;
    }
    let mut saved = state.load(env).await?;
    let (sockets, listener) = Sockets::open(env, config, backends).await?;
    let telemetry = Telemetry::new(VERSION);
    let readiness = Readiness::not_yet("joining the mesh");
    let metrics = address(&listener, "metrics")?;
    let serve = admin::serve(
        listener,
        tasks.clone(),
        telemetry.clone(),
        readiness.clone(),
    );
    drop(tasks.spawn_essential("the metrics port", serve));
    let (svid, bundles) = bootstrap::identity(env, tasks, config, state, &mut saved).await?;
    Ok(Begun {
        saved,
        sockets,
        telemetry,
        readiness,
        metrics,
        svid,
        bundles,
    })
}

async fn start(
    env: &Env,
    config: &SidecarConfig,
    backends: Vec<settings::Backend>,
    tasks: &Tasks,
) -> Result<Sidecar, Error> {
    let state = StateDir::open(env, &config.state_dir).await?;
    let begun = match begin(env, config, backends, tasks, &state).await {
        Ok(begun) => begun,
        Err(error) => {
            state.give_up(env).await;
            return Err(error);
        }
    };
    let state = Arc::new(state);
    let Begun {
        saved,
        sockets,
        telemetry,
        readiness,
        metrics,
        svid,
        bundles,
    } = begun;
    let service = svid
        .id()
        .service()
        .and_then(|(namespace, name)| ServiceName::new(namespace, name).ok())
        .ok_or_else(|| {
            Error::Config(format!(
                "the identity {} is not that of a service: join with a token made by `weft token create --service NAME`",
                svid.id()
            ))
        })?;
    readiness.set(Err("no snapshot from a control node yet".to_owned()));
    let identity = IdentitySource::new(svid, bundles);
    let mut transport = TransportConfig::new(config.mesh_listen, Arc::clone(&identity));
    transport.reset_key = Some(state.reset_key(env).await?);
    let endpoint = Endpoint::bind(transport, env, &tasks.child())
        .map_err(|error| Error::Endpoint(error.to_string()))?;
    let node = Node::new(Parts {
        env: env.clone(),
        telemetry,
        readiness,
        identity,
        service,
        pool: endpoint.pool(),
        listening: tasks.child(),
        traffic: tasks.child(),
        apps: tasks.child(),
    });
    let ready = Ready {
        pid: std::process::id(),
        service: node.service.to_string(),
        spiffe_id: node.id.to_string(),
        instance: saved.instance.clone(),
        mesh: endpoint.local_addr(),
        outbound: address(&sockets.outbound, "outbound")?,
        metrics,
        tcp: sockets
            .tcp
            .iter()
            .map(|(listener, _)| address(listener, "tcp"))
            .collect::<Result<_, _>>()?,
    };
    let background = tasks.child();
    let inbound = Arc::new(Inbound::new(Arc::clone(&node), &config.apps));
    endpoint.serve(inbound);
    // Where the link to a control node is announced.
    let announce = watch::Sender::new(None);
    listen(&node, sockets, announce.subscribe());
    let vitals = vitals(Arc::clone(&node), endpoint.clone());
    drop(background.spawn_essential("the upkeep of metrics", vitals));
    let (leave, linked) = link(
        &node,
        &endpoint,
        config,
        &state,
        saved,
        &background,
        announce,
    )
    .await;
    Ok(Sidecar {
        node,
        endpoint,
        ready,
        leave,
        linked,
        _background: background,
    })
}

impl Sockets {
    async fn open(
        env: &Env,
        config: &SidecarConfig,
        backends: Vec<settings::Backend>,
    ) -> Result<(Self, Listener), Error> {
        let listen = async |addr: SocketAddr, what: &'static str| {
            let listener = env.listen(addr).await;
            listener.map_err(|source| Error::Listen { what, source })
        };
        // Opened for good once there is an identity to answer with.
        drop(
            env.bind_udp(config.mesh_listen)
                .map_err(|source| Error::Listen {
                    what: "the mesh port",
                    source,
                })?,
        );
        let metrics = listen(config.metrics_listen, "the metrics port").await?;
        let outbound = listen(config.outbound_listen, "the outbound port").await?;
        let mut tcp = Vec::new();
        for (port, backend) in config.tcp_listeners.iter().zip(backends) {
            tcp.push((listen(port.listen, "a local TCP port").await?, backend));
        }
        let workload = match &config.workload {
            Some(api) => {
                let socket = WorkloadSocket::open(env, &api.socket).await?;
                Some((socket, api.allow.clone()))
            }
            None => None,
        };
        let sockets = Self {
            outbound,
            tcp,
            workload,
        };
        Ok((sockets, metrics))
    }
}

fn address(listener: &Listener, what: &'static str) -> Result<SocketAddr, Error> {
    listener
        .local_addr()
        .map_err(|source| Error::Listen { what, source })
}

/// Opens the doors of the own application.
fn listen(node: &Arc<Node>, sockets: Sockets, link: watch::Receiver<Option<Connection>>) {
    let Sockets {
        outbound,
        tcp,
        workload,
    } = sockets;
    let listening = &node.listening;
    if let Some((socket, allow)) = workload {
        let workload = Workload {
            identity: Arc::clone(&node.identity),
            allow,
            tokens: Arc::new(ControlTokens { link }),
        };
        let serve = socket.serve(workload, listening.child());
        drop(listening.spawn_essential("the workload socket", serve));
    }
    let serve = outbound::serve(Arc::clone(node), outbound);
    drop(listening.spawn_essential("the outbound port", serve));
    for (listener, backend) in tcp {
        let (service, port) = backend.in_namespace(node.service.namespace());
        let stop = listening.token();
        let target = move || (service.clone(), port);
        let serve = outbound::serve_tcp(Arc::clone(node), stop, listener, target);
        drop(listening.spawn_essential("a local TCP port", serve));
    }
}

/// Puts the saved snapshot into force and starts the link to the control plane.
async fn link(
    node: &Arc<Node>,
    endpoint: &Endpoint,
    config: &SidecarConfig,
    state: &Arc<StateDir>,
    saved: Saved,
    background: &Tasks,
    link: watch::Sender<Option<Connection>>,
) -> (CancellationToken, tokio::task::JoinHandle<()>) {
    let mut applier = Applier::new(Arc::clone(node), Ports::default());
    if let Some(snapshot) = &saved.snapshot {
        match applier.restore(snapshot).await {
            Ok(()) => tracing::info!(
                revision = snapshot.revision,
                "starting with the saved snapshot"
            ),
            Err(error) => tracing::warn!(reason = %error.reason, "the saved snapshot is not used"),
        }
    }
    let mesh = endpoint.local_addr();
    let hello = Hello {
        protocol: PROTOCOL,
        version: VERSION.to_owned(),
        instance: saved.instance,
        mesh_addr: settings::advertised(config, mesh),
        ports: config
            .apps
            .iter()
            .map(|app| PortRecord {
                port: app.port,
                protocol: app.protocol,
            })
            .collect(),
        revision: None,
        serial: String::new(),
        pid: std::process::id(),
    };
    let (renew, wishes) = mpsc::channel(WISHES);
    let renewal = Renewal {
        node: Arc::clone(node),
        state: Arc::clone(state),
        link: link.subscribe(),
        wishes,
    };
    let renewing = renewal.run(background.token());
    drop(background.spawn_essential("the renewal of the certificate", renewing));
    let client = ControlClient {
        node: Arc::clone(node),
        endpoint: endpoint.clone(),
        addresses: config.control.clone(),
        applier,
        state: Arc::clone(state),
        hello,
        link,
        renew,
        unsaved: None,
    };
    let leave = background.token().child_token();
    let linked =
        background.spawn_essential("the link to the control plane", client.run(leave.clone()));
    (leave, linked)
}

impl Sidecar {
    async fn serve(
        self,
        env: &Env,
        config: &SidecarConfig,
        shutdown: CancellationToken,
        tasks: &Tasks,
    ) -> Result<(), Error> {
        let outcome = tokio::select! {
            biased;
            () = shutdown.cancelled() => Ok(()),
            broken = tasks.broken() => Err(Error::from(broken)),
            outcome = self.live(env, config) => outcome,
        };
        if let Err(error @ Error::Broken(_)) = &outcome {
            tracing::error!(%error, "giving up");
        }
        self.stop(config.drain_deadline).await;
        outcome
    }

    /// Says when it is ready. Ends only if that cannot be said.
    async fn live(&self, env: &Env, config: &SidecarConfig) -> Result<(), Error> {
        self.node.readiness.reached().await;
        let Ready {
            service,
            mesh,
            outbound,
            metrics,
            ..
        } = &self.ready;
        tracing::info!(%service, %mesh, %outbound, %metrics, "ready");
        if let Some(path) = &config.ready_file {
            self.ready.write(env, path.clone()).await?;
        }
        std::future::pending().await
    }

    /// First the mesh learns that this instance is gone, then nothing new is taken, then what is under way
    /// ends, or is ended.
    async fn stop(self, deadline: Duration) {
        let began = Instant::now();
        tracing::info!(
            deadline_s = deadline.as_secs_f64(),
            "stopping: requests under way may end"
        );
        self.node.readiness.set(Err("stopping".to_owned()));
        self.leave.cancel();
        // The goodbye has a limit of its own.
        let _ = self.linked.await;
        self.node.listening.shutdown(GRACE).await;
        let left = deadline.saturating_sub(began.elapsed());
        let ((), ended) =
            tokio::join!(self.endpoint.drain(left), self.node.traffic.shutdown(left),);
        if !ended {
            tracing::warn!("some requests or connections did not end in time and were cut");
        }
        tracing::info!("stopped");
    }
}

/// Keeps the gauges true.
async fn vitals(node: Arc<Node>, endpoint: Endpoint) {
    let mut tick = interval(VITALS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let connections = endpoint.connections();
        let count = |direction| {
            connections
                .iter()
                .filter(|c| c.direction == direction)
                .count()
        };
        let telemetry = &node.telemetry;
        telemetry.set_connections(Direction::Dialled, count(Dialler::Outbound));
        telemetry.set_connections(Direction::Accepted, count(Dialler::Inbound));
        for ((direction, reason), total) in endpoint.refusals_by_direction() {
            let side = match direction {
                Dialler::Inbound => Side::Inbound,
                Dialler::Outbound => Side::Outbound,
            };
            telemetry.refusals_total(side, reason, total);
        }
        let end = node.identity.current().svid.not_after();
        let left = end.duration_since(node.env.wall()).unwrap_or_default();
        telemetry.set_svid_left(left);
    }
}
