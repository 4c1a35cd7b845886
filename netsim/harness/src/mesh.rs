//! The mesh: its nodes and the processes on them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_certs::tls::peer_identity;
use weft_certs::{RootPin, TrustDomain};
use weft_control::{ControlConfig, ControlReady, InitConfig, Status};
use weft_env::{Env, JoinHandle};
use weft_netsim_sim::{Node, Process, World};
use weft_proxy::{AppPort, SidecarConfig, TokenSource};
use weft_wire::Protocol;

use crate::app::{APP, App};
use crate::certificates::Certificates;
use crate::model::{INSTANCES, SERVICES};
use crate::observer::Observer;
use crate::operator::Operator;
use crate::schedule::{PLACES, Place, name};

/// Life of certificates: short enough that some end while nobody can renew them.
pub(crate) const LEAF_TTL: Duration = Duration::from_secs(60);
/// What a supervisor waits before it starts a process again that has ended by itself.
const RESTART: Duration = Duration::from_secs(1);
/// How long an instance whose certificate is revoked goes on before the operator sees to it.
const REVOKED: Duration = Duration::from_secs(3);
/// A process that is told to stop gets this long, then it is killed: as systemd does.
const STOPPING: Duration = Duration::from_secs(15);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Mesh {
    pub(crate) world: World,
    pub(crate) observer: Observer,
    pub(crate) certificates: Certificates,
    pub(crate) operator: Operator,
    nodes: Arc<[Node]>,
    slots: Arc<[Mutex<Slot>]>,
    pin: Arc<Mutex<Option<RootPin>>>,
}

/// What runs on a node.
#[derive(Default)]
struct Slot {
    life: u32,
    running: Option<Running>,
    /// Whether the supervisor is to keep it running.
    wanted: bool,
    /// Whether it has its supervisor. Never two: a successor starts when its predecessor has ended.
    supervised: bool,
    app: Option<Process>,
    /// The token to join with, used or not.
    token: Option<String>,
    needs_token: bool,
}

impl Slot {
    fn runs(&self, process: &Process) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.process.name() == process.name())
    }
}

#[derive(Clone)]
struct Running {
    process: Process,
    stop: CancellationToken,
}

impl Mesh {
    pub(crate) fn new(world: &World, observer: &Observer) -> Self {
        let nodes: Arc<[Node]> = (0..PLACES).map(|place| world.node(&name(place))).collect();
        let desk = nodes[0].process("operator");
        let state = |place| state(world, place);
        let operator = Operator::new(desk.env(), state(0), observer);
        let certificates = Certificates::default();
        certificates.look_in((1..PLACES).map(state).collect());
        Self {
            world: world.clone(),
            observer: observer.clone(),
            certificates,
            operator,
            nodes,
            slots: (0..PLACES).map(|_| Mutex::default()).collect(),
            pin: Arc::default(),
        }
    }

    pub(crate) fn node(&self, place: Place) -> &Node {
        &self.nodes[place]
    }

    fn slot(&self, place: Place) -> MutexGuard<'_, Slot> {
        self.slots[place]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn state(&self, place: Place) -> PathBuf {
        state(&self.world, place)
    }

    /// The process of weft on a node, if it runs.
    pub(crate) fn process(&self, place: Place) -> Option<Process> {
        self.slot(place).running.as_ref().map(|r| r.process.clone())
    }

    fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        drop(self.world.lab().env().spawn(future));
    }

    /// Starts control node or sidecar, and keeps it running until it is killed or stopped.
    pub(crate) fn start(&self, place: Place) {
        {
            let mut slot = self.slot(place);
            if slot.wanted {
                return;
            }
            slot.wanted = true;
            if std::mem::replace(&mut slot.supervised, true) {
                return;
            }
        }
        self.observer.disturbed(place);
        let mesh = self.clone();
        self.spawn(async move { mesh.supervise(place).await });
    }

    /// One life after another, as a service manager does.
    async fn supervise(self, place: Place) {
        while self.still_wanted(place) {
            let Some(token) = self.token_for(place).await else {
                sleep(RESTART).await;
                continue;
            };
            let Some((running, ended)) = self.launch(place, token) else {
                continue;
            };
            let ended = ended.await;
            self.observer.disturbed(place);
            let killed = ended.is_err();
            match ended {
                Ok(Ok(())) => self
                    .observer
                    .note(format!("{} has stopped", running.process.name())),
                Ok(Err(Ended { reason, rejoin })) => {
                    self.observer
                        .note(format!("{} ended: {reason}", running.process.name()));
                    self.slot(place).needs_token |= rejoin;
                }
                Err(_) => {}
            }
            // What its tasks have left behind.
            running.process.kill().await;
            {
                let mut slot = self.slot(place);
                if slot.runs(&running.process) {
                    slot.running = None;
                }
            }
            if !killed {
                sleep(RESTART).await;
            }
        }
    }

    /// Whether the supervisor has to go on. If not, it is dismissed.
    fn still_wanted(&self, place: Place) -> bool {
        let mut slot = self.slot(place);
        slot.supervised = slot.wanted;
        slot.wanted
    }

    /// The token to start with: a new one if the last is of no use. `None`: there is none to be had now.
    async fn token_for(&self, place: Place) -> Option<String> {
        if place == 0 {
            return Some(String::new());
        }
        let (needed, token) = {
            let slot = self.slot(place);
            (slot.needs_token || slot.token.is_none(), slot.token.clone())
        };
        if !needed {
            return token;
        }
        let made = self.operator.token(service(place)).await.ok()?;
        // Another one since the root was rotated.
        self.know_pin(&made.pin);
        let mut slot = self.slot(place);
        slot.token = Some(made.token.clone());
        slot.needs_token = false;
        Some(made.token)
    }

    /// What the operator reads of the control node, and gives to whoever joins.
    pub(crate) fn know_pin(&self, pin: &str) {
        if let Ok(pin) = pin.parse() {
            *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
        }
    }

    fn launch(
        &self,
        place: Place,
        token: String,
    ) -> Option<(Running, JoinHandle<Result<(), Ended>>)> {
        let mut slot = self.slot(place);
        if !slot.wanted {
            return None;
        }
        slot.life += 1;
        let what = if place == 0 { "control" } else { "sidecar" };
        let process = self.nodes[place].process(&format!("{what}.{}", slot.life));
        let stop = CancellationToken::new();
        let (env, token_of_stop) = (process.env().clone(), stop.clone());
        let ended = if place == 0 {
            let config = self.control_config();
            process.env().spawn(async move {
                let run = weft_control::run(&env, config, token_of_stop);
                run.await.map_err(|error| Ended {
                    reason: told(&error),
                    rejoin: false,
                })
            })
        } else {
            let config = self.sidecar_config(place, token);
            process.env().spawn(async move {
                let run = weft_proxy::run(&env, config, token_of_stop);
                run.await.map_err(|error| Ended {
                    reason: told(&error),
                    rejoin: matches!(
                        error,
                        weft_proxy::Error::Refused { .. }
                            | weft_proxy::Error::SavedIdentity { .. }
                            | weft_proxy::Error::BadSvid { .. }
                            | weft_proxy::Error::BadAnswer { .. }
                    ),
                })
            })
        };
        let running = Running { process, stop };
        slot.running = Some(running.clone());
        Some((running, ended))
    }

    fn control_config(&self) -> ControlConfig {
        let mut config = ControlConfig::new(self.state(0));
        config.init_if_missing = Some(InitConfig {
            leaf_ttl: LEAF_TTL,
            issuing_ttl: Duration::from_secs(24 * 3600),
            ..InitConfig::default()
        });
        config.ready_file = Some(self.world.dir().join("control-ready.json"));
        config.drain_deadline = Duration::from_secs(2);
        config
    }

    pub(crate) fn sidecar_config(&self, place: Place, token: String) -> SidecarConfig {
        let domain = TrustDomain::parse("weft.local").expect("a legal name");
        let mut config = SidecarConfig::new(self.state(place), domain);
        config.control = vec!["control:15008".to_owned()];
        config.pin = *self.pin.lock().unwrap_or_else(PoisonError::into_inner);
        config.token = TokenSource::Value(token);
        config.apps = vec![AppPort {
            protocol: Protocol::Http,
            port: 80,
            addr: SocketAddr::from(APP),
        }];
        config.drain_deadline = Duration::from_secs(5);
        config
    }

    /// Waits for the control node's first start, and takes the pin from it.
    pub(crate) async fn first_start(&self) -> Result<(), String> {
        self.start(0);
        let file = self.world.dir().join("control-ready.json");
        let ready = async {
            loop {
                if let Ok(text) = std::fs::read_to_string(&file)
                    && let Some(pin) = pin_of(&text)
                {
                    return pin;
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        let pin = timeout(Duration::from_secs(10), ready).await;
        let pin = pin.map_err(|_| "the control node does not start".to_owned())?;
        *self.pin.lock().unwrap_or_else(PoisonError::into_inner) = Some(pin);
        for place in 1..PLACES {
            self.start_app(place);
            self.start(place);
        }
        Ok(())
    }

    /// Ends control node or sidecar as SIGKILL does.
    pub(crate) async fn kill(&self, place: Place) {
        self.observer.disturbed(place);
        let running = {
            let mut slot = self.slot(place);
            slot.wanted = false;
            slot.running.take()
        };
        if let Some(running) = running {
            running.process.kill().await;
        }
        self.observer.disturbed(place);
    }

    /// Tells it to stop, as SIGTERM does.
    pub(crate) fn stop(&self, place: Place) {
        self.observer.disturbed(place);
        let running = {
            let mut slot = self.slot(place);
            slot.wanted = false;
            slot.running.clone()
        };
        let Some(running) = running else { return };
        self.observer.leaving(running.process.name());
        running.stop.cancel();
        let mesh = self.clone();
        self.spawn(async move {
            sleep(STOPPING).await;
            let late = {
                let mut slot = mesh.slot(place);
                let own = slot.runs(&running.process);
                own.then(|| slot.running.take()).flatten()
            };
            if let Some(late) = late {
                late.process.kill().await;
            }
        });
    }

    /// Clears away what has died by itself.
    pub(crate) async fn reap(&self, place: Place) {
        if self.process(place).is_some_and(|process| process.is_dead()) {
            self.observer.note(format!("{} has died", name(place)));
            self.kill(place).await;
        }
    }

    /// Joins anew: the old identity is of no use any more.
    pub(crate) async fn rejoin(&self, place: Place) {
        self.kill(place).await;
        let _ = std::fs::remove_file(self.state(place).join("svid.pem"));
        self.slot(place).needs_token = true;
        self.start(place);
    }

    /// Revokes the certificate of an instance; the operator has it join again with a new token.
    pub(crate) async fn revoke(&self, place: Place) -> Result<(), String> {
        let Some(svid) = crate::certificates::read(&self.state(place)) else {
            return Err("it has no certificate".to_owned());
        };
        let peer = peer_identity(svid.chain()).map_err(|error| error.to_string())?;
        let revoked = self.operator.revoke(svid.serial()).await;
        if let Ok(enforcing) = &revoked {
            let now = self.observer.now();
            let places: Vec<_> = (1..PLACES).map(|at| (at, self.label(at))).collect();
            let mut seen = self.observer.lock();
            for (at, _) in places.iter().filter(|(_, label)| enforcing.contains(label)) {
                seen.refuses.insert((*at, peer.fingerprint.clone()), now);
            }
        }
        sleep(REVOKED).await;
        // Also when nobody has answered: it may have been done all the same.
        self.rejoin(place).await;
        revoked.map(drop)
    }

    /// What the control node has told of itself and the sidecars.
    pub(crate) fn heard(&self, status: &Status) {
        self.know_pin(&status.control.pin);
        for place in 1..PLACES {
            let label = self.label(place);
            let acked = status
                .sidecars
                .iter()
                .filter(|sidecar| format!("{}/{}", sidecar.service, sidecar.instance) == label)
                .filter_map(|sidecar| sidecar.acked_revision)
                .max();
            if let Some(acked) = acked {
                let mut seen = self.observer.lock();
                let before = seen.acked.entry(place).or_default();
                *before = acked.max(*before);
            }
        }
    }

    /// `service/instance`, as the control node calls a sidecar.
    pub(crate) fn label(&self, place: Place) -> String {
        let instance = std::fs::read_to_string(self.state(place).join("instance"));
        format!(
            "{}.default/{}",
            service(place),
            instance.unwrap_or_default().trim()
        )
    }

    pub(crate) fn start_app(&self, place: Place) {
        let mut slot = self.slot(place);
        if slot.app.is_some() {
            return;
        }
        let process = self.nodes[place].process("app");
        let app = App {
            place,
            service: service(place),
            node: self.nodes[place].clone(),
            observer: self.observer.clone(),
            certificates: self.certificates.clone(),
        };
        drop(process.env().spawn(app.run(process.env().clone())));
        slot.app = Some(process);
    }

    pub(crate) async fn kill_app(&self, place: Place) {
        let app = self.slot(place).app.take();
        if let Some(app) = app {
            app.kill().await;
        }
    }

    /// Tries a token that some sidecar has used.
    pub(crate) async fn reuse_token(&self, place: Place) {
        // Used for certain: its sidecar has an identity.
        if crate::certificates::read(&self.state(place)).is_none() || self.slot(place).needs_token {
            return;
        }
        let Some(token) = self.slot(place).token.clone() else {
            return;
        };
        let thief = self.world.node("thief").process("sidecar");
        let mut config = self.sidecar_config(place, token);
        config.state_dir = self
            .world
            .dir()
            .join(format!("thief-{:?}", self.world.now()));
        let (env, dir) = (thief.env().clone(), config.state_dir.clone());
        let run = async move { weft_proxy::run(&env, config, CancellationToken::new()).await };
        let ended = timeout(Duration::from_secs(10), thief.env().spawn(run)).await;
        let joined = crate::certificates::read(&dir).is_some();
        self.observer.note(format!(
            "the thief's attempt: {}",
            if ended.is_ok() { "ended" } else { "cut" }
        ));
        thief.kill().await;
        if joined {
            self.observer.violate(format!(
                "a token of {} was good for a second identity",
                name(place)
            ));
        }
    }
}

/// How a process ended by itself.
struct Ended {
    reason: String,
    /// Whether a new token is needed.
    rejoin: bool,
}

fn told(error: &dyn std::error::Error) -> String {
    // The directory of the run has a name of its own each time.
    let text = error.to_string();
    text.split_whitespace()
        .map(|word| if word.contains('/') { "…" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
}

fn state(world: &World, place: Place) -> PathBuf {
    world.dir().join(name(place))
}

pub(crate) fn service(place: Place) -> &'static str {
    SERVICES[(place.max(1) - 1) / INSTANCES]
}

fn pin_of(text: &str) -> Option<RootPin> {
    let ready: ControlReady = serde_json::from_str(text).ok()?;
    ready.pin.parse().ok()
}

/// Whoever runs in the lab.
pub(crate) fn lab(world: &World) -> &Env {
    world.lab().env()
}
