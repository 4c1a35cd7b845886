//! Rotations under way: one at a time, each a task of the control node that clients may watch or leave.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;
use weft_ca::audit::Event;
use weft_ca::{SlotState, Tier};
use weft_env::Tasks;

use super::job::Job;
use super::plan::{Plan, preview};
use super::{CaService, OwnIdentity, issued};
use crate::admin::types::{CaPlan, Named, Phase, Progress, RotateCa, RotateCerts};
use crate::error::ControlError;
use crate::problem::Reject;
use crate::registry::{Registry, Sidecar};
use crate::store::{Condition, Store, Txn, json};

/// The rotation under way, if there is one.
const PLAN: &str = "ca/rotation";
/// How many there were.
const COUNT: &str = "ca/rotations";
/// How long a rotation waits for its slowest sidecar, unless told otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(600);
/// Longest that a caller may ask for.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// What is rotated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rotation {
    /// An authority.
    Authority(RotateCa),
    Leaves(RotateCerts),
    /// The rest of the one that is stored.
    Resume,
}

impl Rotation {
    /// In a word.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Authority(request) if request.root => "root",
            Self::Authority(_) => "issuing",
            Self::Leaves(_) => "leaves",
            Self::Resume => "the rest of the one that was begun",
        }
    }

    pub(super) fn limits(&self) -> (Option<Duration>, Duration) {
        let (within, timeout) = match self {
            Self::Authority(request) => (request.within_ms, request.timeout_ms),
            Self::Leaves(request) => (request.within_ms, request.timeout_ms),
            Self::Resume => (None, None),
        };
        let timeout = timeout.map_or(DEFAULT_TIMEOUT, Duration::from_millis);
        (
            within.map(|ms| Duration::from_millis(ms).min(MAX_TIMEOUT)),
            timeout.min(MAX_TIMEOUT),
        )
    }

    pub(super) fn concerns(&self, sidecar: &Sidecar) -> bool {
        match self {
            Self::Authority(_) | Self::Resume => true,
            Self::Leaves(request) => {
                let all = request.services.is_empty() && request.instances.is_empty();
                all || request.services.contains(&sidecar.service.to_string())
                    || request.instances.contains(&sidecar.instance)
            }
        }
    }

    /// Whether whoever asks for `other` is served by watching this one.
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Authority(a), Self::Authority(b)) => a.root == b.root,
            (Self::Resume, Self::Authority(_)) => true,
            _ => self == other,
        }
    }
}

/// Starts rotations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rotations {
    pub(super) shared: Arc<Shared>,
}

pub(super) struct Shared {
    pub(super) ca: CaService,
    pub(super) own: OwnIdentity,
    pub(super) registry: Registry,
    pub(super) tasks: Tasks,
    running: Mutex<Option<(Rotation, watch::Receiver<Progress>)>>,
    /// The stored plan is read and written under it.
    pub(super) planning: tokio::sync::Mutex<()>,
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
                planning: tokio::sync::Mutex::new(()),
            }),
        }
    }

    /// Starts a rotation, or joins the one that is under way if it is of the same kind. One that was cut off, by a
    /// restart or by a sidecar that did not answer, goes on where it was.
    ///
    /// # Errors
    /// 409 if another one is under way; 404 if it names a sidecar that is not there.
    pub(crate) async fn start(
        &self,
        rotation: Rotation,
        by: &str,
    ) -> Result<watch::Receiver<Progress>, Reject> {
        if let Some(progress) = self.watch_same(&rotation)? {
            return Ok(progress);
        }
        self.check_names(&rotation)?;
        let ended = match &rotation {
            Rotation::Authority(request) => self.shared.plan(request, by).await?,
            Rotation::Leaves(request) => {
                let event = Event::new("rotation.leaves", subject(request), by);
                self.shared.ca.audit().note(event).await?;
                None
            }
            Rotation::Resume => None,
        };
        let mut running = self.running();
        // Somebody else may have been faster.
        if let Some(progress) = same(&running, &rotation)? {
            return Ok(progress);
        }
        let (sender, receiver) = watch::channel(Progress {
            ended,
            ..Progress::default()
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

    fn running(&self) -> std::sync::MutexGuard<'_, Option<(Rotation, watch::Receiver<Progress>)>> {
        self.shared
            .running
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn watch_same(&self, rotation: &Rotation) -> Result<Option<watch::Receiver<Progress>>, Reject> {
        same(&self.running(), rotation)
    }

    /// What a rotation would do.
    pub(crate) async fn preview(&self, request: &RotateCa) -> Result<CaPlan, Reject> {
        let shared = &self.shared;
        let stored = shared.stored().await?.filter(Plan::waits);
        if let Some(waiting) = &stored {
            goes_on(waiting, request)?;
        }
        let plan = shared.new_plan(request, 0).map_err(Reject::from)?;
        let authority = shared.ca.authority();
        let live = shared.live();
        let steps = match stored {
            Some(waiting) => vec![format!(
                "end rotation {}, which waits: drop its old root at once. Nothing new is begun: run it again for that",
                waiting.number
            )],
            None => preview(&plan, authority.journal(), live.len()),
        };
        Ok(CaPlan {
            steps,
            asleep: shared.asleep().await?,
            sidecars: live,
        })
    }

    /// The stored plan.
    pub(crate) async fn stored(&self) -> Result<Option<Plan>, ControlError> {
        self.shared.stored().await
    }

    /// Identities that have a certificate and no connection.
    pub(crate) async fn asleep(&self) -> Result<Vec<String>, ControlError> {
        self.shared.asleep().await
    }

    /// Refuses to meddle with the authority while a rotation does.
    pub(crate) async fn check_idle(&self) -> Result<(), Reject> {
        match self.stored().await? {
            None => Ok(()),
            Some(plan) => Err(under_way(&plan)),
        }
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

fn subject(request: &RotateCerts) -> String {
    let names: Vec<&str> = request
        .services
        .iter()
        .chain(&request.instances)
        .map(String::as_str)
        .collect();
    match names.is_empty() {
        true => "all".to_owned(),
        false => names.join(","),
    }
}

fn same(
    running: &Option<(Rotation, watch::Receiver<Progress>)>,
    rotation: &Rotation,
) -> Result<Option<watch::Receiver<Progress>>, Reject> {
    let Some((present, progress)) = running else {
        return Ok(None);
    };
    if progress.has_changed().is_err() || progress.borrow().finished {
        return Ok(None);
    }
    match present.is_same(rotation) {
        true => Ok(Some(progress.clone())),
        false => Err(Reject::new(
            StatusCode::CONFLICT,
            "rotation_under_way",
            "another rotation is under way; wait for its end, then try again",
        )),
    }
}

/// Whether a stored rotation is one that this request goes on with, or cuts short; also what `--dry-run` answers by.
fn goes_on(plan: &Plan, request: &RotateCa) -> Result<(), Reject> {
    let same = (plan.tier == Tier::Root) == request.root;
    match same && (!plan.waits() || request.now || request.allow_missing) {
        true => Ok(()),
        false => Err(under_way(plan)),
    }
}

fn under_way(plan: &Plan) -> Reject {
    let role = plan.tier.as_str();
    let message = match (&plan.renewed, plan.tier) {
        (Some(_), Tier::Root) => format!(
            "rotation {} of the root waits until nothing chains to the old one, and no other begins before; wait, or have the old one dropped at once with: weft ca rotate root --now",
            plan.number
        ),
        _ => format!(
            "rotation {} of the {role} authority is not finished; finish it with: weft ca rotate {role}",
            plan.number
        ),
    };
    Reject::new(StatusCode::CONFLICT, "rotation_under_way", message)
}

/// The plan that is stored.
pub(super) async fn stored(store: &dyn Store) -> Result<Option<Plan>, ControlError> {
    let Some(entry) = store.get(PLAN).await? else {
        return Ok(None);
    };
    serde_json::from_slice(&entry.value)
        .map(Some)
        .map_err(|error| ControlError::Damaged {
            what: format!("the rotation under way cannot be read: {error}"),
        })
}

impl Shared {
    /// The plan that is stored.
    pub(super) async fn stored(&self) -> Result<Option<Plan>, ControlError> {
        stored(&**self.ca.store()).await
    }

    /// With the plan as it is to be stored.
    pub(super) fn put(txn: Txn, plan: &Plan) -> Txn {
        txn.put(PLAN, json(plan))
    }

    /// Without a plan: it is done.
    pub(super) fn done(txn: Txn) -> Txn {
        txn.delete(PLAN)
    }

    fn new_plan(&self, request: &RotateCa, number: u64) -> Result<Plan, ControlError> {
        let authority = self.ca.authority();
        let tier = match request.root {
            true => Tier::Root,
            false => Tier::Issuing,
        };
        let mut old = Vec::new();
        for tier in [Tier::Root, Tier::Issuing] {
            old.push(Named::of(tier, authority.journal().active(tier)?));
        }
        let mut plan = Plan::new(number, tier, old, self.ca.wall());
        plan.now = request.now;
        plan.allow_missing = request.allow_missing;
        Ok(plan)
    }

    /// Stores the plan of a rotation before anything of it is done. One of the same kind that is stored goes on, with
    /// what is asked for now. Gives the number of one that only waited: it is ended, and nothing new is begun.
    async fn plan(&self, request: &RotateCa, by: &str) -> Result<Option<u64>, Reject> {
        let _one = self.planning.lock().await;
        if let Some(mut plan) = self.stored().await? {
            goes_on(&plan, request)?;
            plan.now |= request.now;
            plan.allow_missing |= request.allow_missing;
            let event = Event::new("rotation.resumed", plan.number, by);
            let txn = Self::put(Txn::new(), &plan);
            self.ca.audit().commit(txn, vec![event]).await?;
            return Ok(plan.waits().then_some(plan.number));
        }
        self.check_slots(request)?;
        let entry = self.ca.store().get(COUNT).await?;
        let count = entry.and_then(|entry| serde_json::from_slice::<u64>(&entry.value).ok());
        let number = count.unwrap_or(0) + 1;
        let plan = self.new_plan(request, number)?;
        let event = Event::new("rotation.started", number, by)
            .with("role", plan.tier.as_str())
            .with("now", plan.now)
            .with("allow_missing", plan.allow_missing);
        let txn = Self::put(Txn::new(), &plan)
            .when(Condition::Absent(PLAN.to_owned()))
            .put(COUNT, number.to_string());
        self.ca.audit().commit(txn, vec![event]).await?;
        Ok(None)
    }

    /// A rotation needs the tier's other slot.
    fn check_slots(&self, request: &RotateCa) -> Result<(), Reject> {
        let authority = self.ca.authority();
        let tier = if request.root {
            Tier::Root
        } else {
            Tier::Issuing
        };
        let old = authority.journal().slots(tier).iter();
        let mut old = old.filter(|slot| slot.state == SlotState::Old);
        match old.next() {
            None => Ok(()),
            Some(old) => Err(Reject::new(
                StatusCode::CONFLICT,
                "transition",
                format!(
                    "{id} is old and still there: remove it with `weft ca revoke {id}` first",
                    id = old.id
                ),
            )),
        }
    }

    /// Names of connected sidecars.
    pub(super) fn live(&self) -> Vec<String> {
        self.registry.read(|table| {
            let live = table.iter().filter(|sidecar| sidecar.is_live());
            live.map(Sidecar::label).collect()
        })
    }

    /// Identities that have a certificate and no connection.
    pub(super) async fn asleep(&self) -> Result<Vec<String>, ControlError> {
        let leaves = issued::live(&**self.ca.store(), self.ca.wall()).await?;
        let awake: std::collections::BTreeSet<String> = self.registry.read(|table| {
            let live = table.iter().filter(|sidecar| sidecar.is_live());
            live.map(|sidecar| sidecar.identity.to_string()).collect()
        });
        let mut asleep: Vec<String> = leaves
            .into_iter()
            .filter(|leaf| !weft_ca::is_reserved(&leaf.id))
            .map(|leaf| leaf.id.to_string())
            .filter(|id| !awake.contains(id))
            .collect();
        asleep.sort();
        asleep.dedup();
        Ok(asleep)
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: Phase::Started,
            done: 0,
            total: 0,
            absent: Vec::new(),
            finished: false,
            message: None,
            issuer_before: None,
            issuer_after: None,
            rotated: Vec::new(),
            missing: Vec::new(),
            asleep: Vec::new(),
            gone: Vec::new(),
            elsewhere: Vec::new(),
            evidence: None,
            until_unix: None,
            ended: None,
        }
    }
}
