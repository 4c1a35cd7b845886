//! A sidecar from its start to its end.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tracing::Span;
use weft_certs::{IdentitySource, SpiffeId, X509Svid};
use weft_env::{ChannelListener, Env, Listener, Tasks};
use weft_resources::ServiceName;
use weft_telemetry::Telemetry;
use weft_transport::{Connection, Endpoint, Pins, Relay, TransportConfig};
use weft_wire::{Hello, PROTOCOL, PortRecord};
use weft_workload::{Entry, Workload, WorkloadSocket};

use crate::admin::{self, Readiness};
use crate::attest::Again;
use crate::bootstrap::Begin;
use crate::config::{SidecarConfig, TokenSource, WorkloadApi};
use crate::control_client::{Applier, ControlClient, Homes};
use crate::group::Seat;
use crate::handover::doors::{Doors, Role};
use crate::handover::take::{self, Predecessor};
use crate::identity::Renewal;
use crate::inbound::Inbound;
use crate::link::{Keeper, Link};
use crate::node::{Node, Parts};
use crate::outbound::{self, ports::Ports};
use crate::provider::Follow;
use crate::ready::Ready;
use crate::serving::{Built, End, GRACE, Sidecar};
use crate::state_dir::{Saved, StateDir};
use crate::tokens::ControlTokens;
use crate::{Error, VERSION, handover, settings, vitals};

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
    let seat = Seat::alone(config.state_dir.clone());
    run_in(env, config, backends, shutdown, &seat).await
}

/// The same for one that has its place in a process, with settings that are checked.
pub(crate) async fn run_in(
    env: &Env,
    config: SidecarConfig,
    backends: Vec<settings::Backend>,
    shutdown: CancellationToken,
    seat: &Seat,
) -> Result<(), Error> {
    let tasks = Tasks::within(env, Span::current());
    // If this future is dropped, what it started ends too: the tasks keep each other's owners alive.
    let _end = tasks.token().drop_guard();
    let started = tokio::select! {
        biased;
        started = start(env, &config, backends, &tasks, seat) => Some(started),
        // While it joins, there is nothing to drain.
        () = shutdown.cancelled() => None,
    };
    let outcome = match started {
        None => Ok(End::Stopped),
        Some(Err(error)) => {
            seat.failed(&error);
            Err(error)
        }
        Some(Ok(sidecar)) => sidecar.serve(env, &config, shutdown, &tasks).await,
    };
    tasks.shutdown(GRACE).await;
    if let (Some(file), Ok(End::Stopped)) = (config.ready_file, &outcome) {
        let _ = env.disk(move |disk| disk.remove(&file)).await;
    }
    outcome.map(drop)
}

/// The doors of the own application. They are opened first, with the metrics port: one in use must not cost a
/// token.
struct Sockets {
    outbound: Arc<Listener>,
    tcp: Vec<(Arc<Listener>, settings::Backend)>,
    workload: Option<(WorkloadSocket, Vec<Entry>)>,
}

/// Where a process stands: a place that is free, or that of the process before.
struct Place {
    state: StateDir,
    doors: Arc<Doors>,
    /// `None` in a simulation; and before it is opened.
    relay: Option<Relay>,
    desk: Option<ChannelListener>,
}

impl Place {
    /// Takes the place of the process that runs, if that is asked for and one does.
    async fn find(
        env: &Env,
        config: &SidecarConfig,
        seat: &Seat,
    ) -> Result<(Self, Option<Predecessor>), Error> {
        let (dir, holds) = (&config.state_dir, seat.group().homes());
        if config.take_over
            && let Some((before, estate)) = take::ask(env, dir, config.mesh_listen, holds).await?
        {
            seat.inherits();
            let place = Self {
                state: StateDir::take_over(&config.state_dir, estate.lock),
                doors: estate.doors,
                relay: Some(estate.relay),
                desk: Some(estate.desk),
            };
            return Ok((place, Some(before)));
        }
        let state = match config.take_over {
            true => StateDir::inherit(env, &config.state_dir).await?,
            false => StateDir::open(env, &config.state_dir).await?,
        };
        let desk = env.hands_over().then(|| {
            let path = handover::desk(&config.state_dir);
            env.listen_channel(&path).inspect_err(|error| {
                tracing::warn!(%error, "this sidecar cannot be upgraded while it runs: give it a state directory with a shorter path");
            })
        });
        let place = Self {
            state,
            doors: Doors::new(env),
            relay: None,
            desk: desk.and_then(Result::ok),
        };
        Ok((place, None))
    }
}

/// What there is once the sidecar has an identity.
struct Begun {
    saved: Saved,
    sockets: Sockets,
    telemetry: Telemetry,
    readiness: Readiness,
    metrics: SocketAddr,
    identity: Begin,
}

/// All that fails for reasons outside of the mesh, and the joining.
async fn begin(
    env: &Env,
    config: &SidecarConfig,
    backends: Vec<settings::Backend>,
    tasks: &Tasks,
    place: &mut Place,
    seat: &Seat,
) -> Result<Begun, Error> {
    let mut saved = place.state.load(env).await?;
    let (sockets, listener) = Sockets::open(env, config, backends, place).await?;
    seat.opened(&saved.instance).await?;
    let telemetry = Telemetry::new(VERSION);
    let readiness = Readiness::not_yet("joining the mesh");
    let metrics = address(&listener, "metrics")?;
    let serve = admin::serve(
        listener,
        place.doors.gate(),
        tasks.clone(),
        telemetry.clone(),
        readiness.clone(),
    );
    drop(tasks.spawn_essential("the metrics port", serve));
    let identity = Begin::take(env, config, tasks, &place.state, &mut saved).await?;
    Ok(Begun {
        saved,
        sockets,
        telemetry,
        readiness,
        metrics,
        identity,
    })
}

async fn start(
    env: &Env,
    config: &SidecarConfig,
    backends: Vec<settings::Backend>,
    tasks: &Tasks,
    seat: &Seat,
) -> Result<Sidecar, Error> {
    let (place, before) = Place::find(env, config, seat).await?;
    let Some(before) = before else {
        if let Some(file) = config.ready_file.clone() {
            // A crash has left it: whoever waits for it waits for this sidecar.
            let _ = env.disk(move |disk| disk.remove(&file)).await;
        }
        let mut sidecar = prepare(env, config, backends, tasks, place, seat).await?;
        sidecar.go(config, false);
        return Ok(sidecar);
    };
    // One that takes over goes on with the identity that there is.
    let config = SidecarConfig {
        token: TokenSource::None,
        ..config.clone()
    };
    let prepared = async {
        let sidecar = prepare(env, &config, backends, tasks, place, seat).await?;
        seat.prepared().await.map(|()| sidecar)
    };
    match prepared.await {
        Ok(mut sidecar) => {
            before.take().await?;
            sidecar.go(&config, true);
            Ok(sidecar)
        }
        Err(error) => {
            before.give_up(&error).await;
            Err(error)
        }
    }
}

/// Everything up to the first packet.
async fn prepare(
    env: &Env,
    config: &SidecarConfig,
    backends: Vec<settings::Backend>,
    tasks: &Tasks,
    mut place: Place,
    seat: &Seat,
) -> Result<Sidecar, Error> {
    let begun = match begin(env, config, backends, tasks, &mut place, seat).await {
        Ok(begun) => begun,
        Err(error) => {
            // Its socket goes first: the directory is to be as empty as it was.
            drop(place.desk);
            place.state.give_up(env).await;
            return Err(error);
        }
    };
    let Place {
        state,
        doors,
        relay,
        desk,
    } = place;
    let state = Arc::new(state);
    let Begun {
        saved,
        sockets,
        telemetry,
        readiness,
        metrics,
        identity: Begin {
            svid,
            bundles,
            from,
        },
    } = begun;
    let service = service_of(&svid, config.identity.as_deref())?;
    Span::current().record("service", tracing::field::display(&service));
    readiness.set(Err("no snapshot from a control node yet".to_owned()));
    let identity = IdentitySource::new(svid, bundles);
    let mut transport = TransportConfig::new(config.mesh_listen, Arc::clone(&identity));
    transport.reset_key = Some(state.reset_key(env).await?);
    transport.relay.clone_from(&relay);
    transport.profile = config.profile.clone();
    transport.pins = pins(config, &identity, &service)?;
    transport.key_exchange = config.key_exchange;
    transport.fallback = config.tcp_fallback;
    let endpoint = Endpoint::bind(transport, env, &tasks.child())
        .await
        .map_err(|error| Error::Endpoint(error.to_string()))?;
    let node = Node::new(Parts {
        env: env.clone(),
        telemetry,
        readiness,
        identity,
        provider: from,
        service,
        pool: endpoint.pool(),
        doors,
        relay,
        listening: tasks.child(),
        traffic: tasks.child(),
        apps: tasks.child(),
        head_timeout: config.head_timeout,
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
    let workload = node.listening.child();
    listen(&node, sockets, announce.subscribe(), &workload);
    let vitals = vitals::keep(Arc::clone(&node), endpoint.clone());
    drop(background.spawn_essential("the upkeep of metrics", vitals));
    let link = link(
        &node,
        &endpoint,
        config,
        &state,
        saved,
        &background,
        announce,
    )
    .await?;
    Ok(Sidecar::new(Built {
        node,
        endpoint,
        ready,
        state,
        link,
        workload,
        background,
        desk,
        seat: seat.clone(),
    }))
}

/// Whom an identity stands for.
fn service_of(svid: &X509Svid, from: Option<&Path>) -> Result<ServiceName, Error> {
    svid.id()
        .service()
        .and_then(|(namespace, name)| ServiceName::new(namespace, name).ok())
        .ok_or_else(|| {
            let next = match from {
                None => "join with a token made by `weft token create --service NAME`",
                Some(_) => "have the provider register this sidecar as spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE",
            };
            Error::Config(format!(
                "the identity {} is not that of a service: {next}",
                svid.id()
            ))
        })
}

/// The profiles of peers, by the identities that they have in this mesh.
fn pins(
    config: &SidecarConfig,
    identity: &IdentitySource,
    own: &ServiceName,
) -> Result<Pins, Error> {
    let mut pins = Pins::default();
    let svid = &identity.current().svid;
    for peer in &config.peer_profiles {
        let service = settings::peer(peer, own.namespace())?;
        let domain = svid.id().trust_domain();
        let id = SpiffeId::for_service(domain, service.namespace(), service.name()).map_err(
            |error| Error::Config(format!("the profile of '{}': {error}", peer.service)),
        )?;
        pins.pin(id, peer.profile.clone());
    }
    Ok(pins)
}

impl Sockets {
    async fn open(
        env: &Env,
        config: &SidecarConfig,
        backends: Vec<settings::Backend>,
        place: &mut Place,
    ) -> Result<(Self, Arc<Listener>), Error> {
        let mesh = |source| Error::Listen {
            what: "the mesh port",
            source,
        };
        if place.relay.is_none() {
            if env.hands_over() {
                let relay = Relay::open(env, config.mesh_listen, config.tcp_fallback).await;
                place.relay = Some(relay.map_err(mesh)?);
            } else {
                // Opened for good once there is an identity to answer with.
                drop(env.bind_udp(config.mesh_listen).map_err(mesh)?);
            }
        }
        if let Some(relay) = &place.relay {
            let answered = relay.answer_tcp(config.tcp_fallback);
            answered.await.map_err(mesh)?;
        }
        let doors = &place.doors;
        let listen = async |role: Role, addr: SocketAddr, what: &'static str| {
            let listener = doors.tcp(role, addr).await;
            listener.map_err(|source| Error::Listen { what, source })
        };
        let metrics = listen(Role::Metrics, config.metrics_listen, "the metrics port").await?;
        let outbound = listen(Role::Outbound, config.outbound_listen, "the outbound port").await?;
        let mut tcp = Vec::new();
        for (port, backend) in config.tcp_listeners.iter().zip(backends) {
            let listener = listen(Role::Tcp, port.listen, "a local TCP port").await?;
            tcp.push((listener, backend));
        }
        let workload = match &config.workload {
            Some(api) => Some((workload_socket(env, doors, api).await?, api.allow.clone())),
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

async fn workload_socket(
    env: &Env,
    doors: &Doors,
    api: &WorkloadApi,
) -> Result<WorkloadSocket, Error> {
    let inherited = doors.inherited_unix(Role::Workload, &api.socket);
    let inherited = inherited.map_err(|source| Error::Listen {
        what: "the workload socket",
        source,
    })?;
    let socket = match inherited {
        Some(listener) => WorkloadSocket::on(Arc::new(listener), api.socket.clone()),
        None => WorkloadSocket::open(env, &api.socket).await?,
    };
    doors.remember_unix(Role::Workload, &api.socket, socket.listener());
    Ok(socket)
}

fn address(listener: &Listener, what: &'static str) -> Result<SocketAddr, Error> {
    listener
        .local_addr()
        .map_err(|source| Error::Listen { what, source })
}

/// Opens the doors of the own application.
fn listen(
    node: &Arc<Node>,
    sockets: Sockets,
    link: watch::Receiver<Option<Connection>>,
    callers: &Tasks,
) {
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
        let serve = socket.serve(workload, callers.clone());
        drop(callers.spawn_essential("the workload socket", serve));
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

/// Puts the saved snapshot into force and makes the link to the control plane.
async fn link(
    node: &Arc<Node>,
    endpoint: &Endpoint,
    config: &SidecarConfig,
    state: &Arc<StateDir>,
    saved: Saved,
    background: &Tasks,
    link: watch::Sender<Option<Connection>>,
) -> Result<Link, Error> {
    let mut applier = Applier::new(Arc::clone(node), Ports::default());
    if let Some(snapshot) = &saved.snapshot {
        match applier.restore(snapshot).await {
            Ok(()) => tracing::info!(
                revision = snapshot.revision,
                "starting with the saved snapshot"
            ),
            Err(error) if config.take_over && node.doors.is_paused() => {
                // The process before serves by it; this one would serve nothing.
                return Err(Error::TakeOver(format!(
                    "the saved snapshot cannot be used: {}",
                    error.reason
                )));
            }
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
        identity_from: node.provider.as_ref().map(|provider| provider.address()),
    };
    let (renew, wishes) = mpsc::channel(WISHES);
    let keeper = match &node.provider {
        Some(provider) => Keeper::Follow(Box::new(Follow::new(
            Arc::clone(node),
            Arc::clone(provider),
            wishes,
            background.clone(),
        ))),
        None => Keeper::Renewal(Box::new(Renewal {
            node: Arc::clone(node),
            state: Arc::clone(state),
            link: link.subscribe(),
            again: Again::new(config, node, background),
            wishes,
        })),
    };
    let client = ControlClient {
        node: Arc::clone(node),
        endpoint: endpoint.clone(),
        homes: Homes {
            control: config.control.clone(),
            delegate: config.delegate.clone(),
        },
        applier,
        state: Arc::clone(state),
        hello,
        link,
        renew,
        unsaved: None,
        goes_on: Arc::default(),
    };
    Ok(Link::new(background.clone(), client, keeper))
}
