//! Rotations under way: one at a time, each a task of the control node that clients may watch or leave.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_ca::SlotState;
use weft_env::Tasks;
use weft_wire::Renew;

use super::tracker::{Goal, Standing, Tracker};
use super::{CaService, OwnIdentity};
use crate::admin::types::{Phase, Progress, RotateCa, RotateCerts};
use crate::error::ControlError;
use crate::problem::Reject;
use crate::registry::{Registry, Sidecar};

/// How long a rotation waits for its slowest sidecar, unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest that a caller may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rotation {
    Issuing(RotateCa),
    Leaves(RotateCerts),
    /// The rest of an `Issuing` that a restart interrupted.
    Finish,
}

impl Rotation {
    fn limits(&self) -> (Option<Duration>, Duration) {
        let (within, timeout) = match self {
            Self::Issuing(request) => (request.within_ms, request.timeout_ms),
            Self::Leaves(request) => (request.within_ms, request.timeout_ms),
            Self::Finish => (None, None),
        };
        let timeout = timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
        (
            within.map(|ms| Duration::from_millis(ms).min(MAX_TIMEOUT)),
            timeout.min(MAX_TIMEOUT),
        )
    }

    fn concerns(&self, sidecar: &Sidecar) -> bool {
        match self {
            Self::Issuing(_) | Self::Finish => true,
            Self::Leaves(request) => {
                let all = request.services.is_empty() && request.instances.is_empty();
                all || request.services.contains(&sidecar.service.to_string())
                    || request.instances.contains(&sidecar.instance)
            }
        }
    }
}

/// Starts rotations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rotations {
    shared: Arc<Shared>,
}

struct Shared {
    ca: CaService,
    own: OwnIdentity,
    registry: Registry,
    tasks: Tasks,
    running: Mutex<Option<(Rotation, watch::Receiver<Progress>)>>,
}

impl Rotations {
    pub(crate) fn new(ca: CaService, own: OwnIdentity, registry: Registry, tasks: Tasks) -> Self {
        Self {
            shared: Arc::new(Shared {
                ca,
                own,
                registry,
                tasks,
                running: Mutex::new(None),
            }),
        }
    }

    /// Starts a rotation, or joins the very same one that is under way.
    ///
    /// # Errors
    /// 409 if another one is under way; 404 if it names a sidecar that is not there.
    pub(crate) fn start(&self, rotation: Rotation) -> Result<watch::Receiver<Progress>, Reject> {
        let mut running = self
            .shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some((present, progress)) = running.as_ref()
            && progress.has_changed().is_ok()
            && !progress.borrow().finished
        {
            if *present == rotation {
                return Ok(progress.clone());
            }
            return Err(Reject::new(
                StatusCode::CONFLICT,
                "rotation_under_way",
                "another rotation is under way; wait for its end, then try again",
            ));
        }
        self.check_names(&rotation)?;
        let (sender, receiver) = watch::channel(Progress {
            phase: Phase::Renewing,
            done: 0,
            total: 0,
            absent: Vec::new(),
            finished: false,
            message: None,
            issuer_before: None,
            issuer_after: None,
            rotated: Vec::new(),
        });
        let job = Job {
            shared: self.shared.clone(),
            rotation: rotation.clone(),
            progress: sender,
        };
        self.shared.tasks.spawn(job.run());
        *running = Some((rotation, receiver.clone()));
        Ok(receiver)
    }

    /// Whether a rotation of the issuing CA was cut off by a restart.
    pub(crate) fn is_unfinished(&self) -> bool {
        [SlotState::Prepared, SlotState::Old]
            .into_iter()
            .any(|state| !self.shared.ca.issuers_in(state).is_empty())
    }

    fn check_names(&self, rotation: &Rotation) -> Result<(), Reject> {
        let Rotation::Leaves(request) = rotation else {
            return Ok(());
        };
        let missing = self.shared.registry.read(|table| {
            let live = |is: &dyn Fn(&Sidecar) -> bool| table.iter().any(|s| s.is_live() && is(s));
            let instances = request
                .instances
                .iter()
                .find(|name| !live(&|s| s.instance == **name));
            let services = request
                .services
                .iter()
                .find(|name| !live(&|s| s.service.to_string() == **name));
            instances.or(services).cloned()
        });
        missing.map_or(Ok(()), |name| {
            Err(Reject::new(
                StatusCode::NOT_FOUND,
                "no_such_sidecar",
                format!("no sidecar of the name {name} is connected; weft status lists them"),
            ))
        })
    }
}

struct Job {
    shared: Arc<Shared>,
    rotation: Rotation,
    progress: watch::Sender<Progress>,
}

impl Job {
    async fn run(self) {
        tracing::info!(rotation = ?self.rotation, "rotation begins");
        let result = match &self.rotation {
            Rotation::Issuing(_) | Rotation::Finish => self.issuing().await,
            Rotation::Leaves(_) => {
                self.renew_all(Goal::NewLeaf, "rotation of certificates")
                    .await
            }
        };
        self.progress.send_modify(|progress| {
            progress.finished = true;
            progress.phase = match &result {
                Ok(()) => Phase::Done,
                Err(_) => Phase::Failed,
            };
            progress.message = result.as_ref().err().cloned();
        });
        match result {
            Ok(()) => tracing::info!("rotation done"),
            Err(reason) => tracing::warn!(reason, "rotation failed"),
        }
    }

    fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    /// prepare → activate → own SVID → sidecars → retire; the journal is stored before each.
    async fn issuing(&self) -> Result<(), String> {
        let ca = &self.shared.ca;
        let words = |error: ControlError| error.to_string();
        let (_, before) = ca.active_issuer().map_err(|error| error.to_string())?;
        self.progress
            .send_modify(|progress| progress.issuer_before = Some(before));
        if self.must_prepare() {
            ca.step(Box::new(|authority, keys, now, rng| {
                authority.prepare_issuing(keys, now, rng)
            }))
            .await
            .map_err(words)?;
        }
        self.phase(Phase::Prepared);
        if let Some(next) = ca.issuers_in(SlotState::Prepared).first().cloned() {
            ca.step(Box::new(move |authority, _, now, _| {
                authority.activate_issuing(&next, now)
            }))
            .await
            .map_err(words)?;
        }
        let (_, after) = ca.active_issuer().map_err(|error| error.to_string())?;
        self.progress.send_modify(|progress| {
            progress.phase = Phase::Activated;
            progress.issuer_after = Some(after.clone());
        });
        self.shared.own.renew().map_err(words)?;
        self.renew_all(Goal::Issuer(after), "rotation of the issuing CA")
            .await?;
        for old in ca.issuers_in(SlotState::Old) {
            ca.step(Box::new(move |authority, _, now, _| {
                authority.retire_issuing(&old, now)
            }))
            .await
            .map_err(words)?;
        }
        self.phase(Phase::Retired);
        Ok(())
    }

    /// One that a crash left prepared is used.
    fn must_prepare(&self) -> bool {
        self.rotation != Rotation::Finish
            && self.shared.ca.issuers_in(SlotState::Prepared).is_empty()
    }

    /// Asks sidecars for new certificates until all have reached the goal.
    async fn renew_all(&self, goal: Goal, reason: &str) -> Result<(), String> {
        self.phase(Phase::Renewing);
        let (window, timeout) = self.rotation.limits();
        let deadline = Instant::now() + timeout;
        let registry = &self.shared.registry;
        let mut changes = registry.subscribe();
        let mut tracker =
            registry.read(|table| Tracker::new(goal, window, table, |s| self.rotation.concerns(s)));
        let renew = Renew {
            reason: reason.to_owned(),
            within_ms: u64::try_from(tracker.window().as_millis()).unwrap_or(u64::MAX),
        };
        loop {
            changes.mark_unchanged();
            let standing = registry.read(|table| tracker.look(table, Instant::now()));
            registry.ask_to_renew(&standing.ask, &renew);
            let complete = standing.is_complete();
            let look_again = standing.look_again.unwrap_or(deadline).min(deadline);
            if Instant::now() >= deadline && !complete {
                let reason = too_late(&standing, timeout);
                self.show(standing);
                return Err(reason);
            }
            self.show(standing);
            if complete {
                return Ok(());
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return Err("the control node stops".to_owned());
                },
                () = sleep_until(look_again) => {}
            }
        }
    }

    fn show(&self, standing: Standing) {
        self.progress.send_if_modified(|progress| {
            let before = (progress.done, progress.total);
            progress.done = standing.done;
            progress.total = standing.total;
            progress.absent = standing.absent;
            progress.rotated = standing.rotated;
            before != (progress.done, progress.total)
        });
    }
}

fn too_late(standing: &Standing, timeout: Duration) -> String {
    format!(
        "after {} s {} of {} sidecars have no new certificate yet: {}; look at their logs, then rotate again",
        timeout.as_secs(),
        standing.total - standing.done,
        standing.total,
        standing.absent.join(", ")
    )
}
