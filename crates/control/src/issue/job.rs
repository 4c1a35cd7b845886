//! Carries a rotation out, step by step. Every step is stored before what follows from it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use weft_ca::audit::Event;
use weft_ca::{Journal, Tier};
use weft_certs::serial_of;
use weft_wire::Renew;

use super::authority::Along;
use super::plan::{Milestone, Next, Plan};
use super::rotation::{Rotation, Shared};
use super::tracker::{Goal, Standing, Tracker};
use super::witness::{chained, children_of, seen, trusting, under};
use super::{evidence, issued};
use crate::admin::types::{Phase, Progress, Seen};
use crate::error::ControlError;
use crate::store::Txn;
use crate::time::{unix_ms, unix_s};

/// More steps than any rotation has.
const MAX_STEPS: usize = 64;

/// One rotation, as a task.
pub(super) struct Job {
    pub(super) shared: Arc<Shared>,
    pub(super) rotation: Rotation,
    pub(super) progress: watch::Sender<Progress>,
}

/// How a rotation stands when its task ends.
enum End {
    Done,
    /// The old root stays trusted until then; the control node comes back to it.
    Parked(u64),
}

impl Job {
    pub(super) async fn run(self) {
        tracing::info!(what = self.rotation.what(), "rotation begins");
        let result = match &self.rotation {
            Rotation::Authority(_) | Rotation::Resume => self.authority().await,
            Rotation::Leaves(_) => self
                .renew_all(Goal::NewLeaf, "rotation of certificates", None)
                .await
                .map(|()| End::Done),
        };
        if let Err(reason) = &result {
            let event =
                Event::new("rotation.stopped", "rotation", "control").with("reason", reason);
            self.shared.ca.audit().refused(event).await;
        }
        self.progress.send_modify(|progress| {
            progress.finished = true;
            match &result {
                Ok(End::Done) => progress.phase = Phase::Done,
                Ok(End::Parked(until)) => {
                    progress.phase = Phase::Waiting;
                    progress.until_unix = Some(*until);
                }
                Err(reason) => {
                    progress.phase = Phase::Failed;
                    progress.message = Some(reason.clone());
                }
            }
        });
        match result {
            Ok(End::Done) => tracing::info!("rotation done"),
            Ok(End::Parked(until)) => tracing::info!(until, "the old root stays until then"),
            Err(reason) => tracing::warn!(reason, "rotation stopped"),
        }
    }

    fn phase(&self, phase: Phase) {
        self.progress.send_modify(|progress| progress.phase = phase);
    }

    async fn authority(&self) -> Result<End, String> {
        for _ in 0..MAX_STEPS {
            let plan = {
                let _one = self.shared.planning.lock().await;
                self.shared.stored().await.map_err(words)?
            };
            let Some(plan) = plan else {
                return Ok(End::Done);
            };
            self.show_plan(&plan);
            let authority = self.shared.ca.authority();
            let next = plan.next(authority.journal()).map_err(|e| e.to_string())?;
            tracing::info!(rotation = plan.number, step = next.name(), "rotation");
            if let Some(until) = self.take(plan, next).await? {
                return Ok(End::Parked(until));
            }
        }
        Err("it takes more steps than there are; look at `weft ca show`".to_owned())
    }

    fn show_plan(&self, plan: &Plan) {
        let serial = |id: &Option<String>| {
            let authority = self.shared.ca.authority();
            let slot = authority.journal().slot(Tier::Issuing, id.as_ref()?).ok()?;
            serial_of(&slot.certificate).ok()
        };
        let after = serial(&plan.issuing);
        let before = plan.old.iter().find(|named| named.role == "issuing");
        self.progress.send_modify(|progress| {
            progress.issuer_before = before.map(|named| named.serial.clone());
            progress.issuer_after = after;
        });
    }

    /// Takes one step. A time if the rest has to wait until then.
    async fn take(&self, plan: Plan, next: Next) -> Result<Option<u64>, String> {
        match next {
            Next::Discard(tier, id) => self.discard(tier, id).await?,
            Next::Intend(tier) => self.intend(tier).await?,
            Next::Prepare(tier) => self.prepare(tier, plan).await?,
            Next::Adopt(tier, id) => self.adopt(tier, id, plan).await?,
            Next::Distribute => self.distribute(plan).await?,
            Next::Activate(tier, id) => self.activate(tier, id).await?,
            Next::Renew(id) => self.renew(&id, plan).await?,
            Next::RetireIssuing(id) => self.retire_issuing(id, plan).await?,
            Next::RetireRoot(id) => return self.retire_root(id, plan).await,
            Next::Finish => self.finish(plan).await?,
        }
        Ok(None)
    }

    async fn discard(&self, tier: Tier, id: String) -> Result<(), String> {
        let step = self.shared.ca.step(
            Box::new(move |authority, _, now, _| authority.journal().retire_now(tier, &id, now)),
            |_| Along::default(),
        );
        step.await.map(drop).map_err(words)
    }

    async fn intend(&self, tier: Tier) -> Result<(), String> {
        let step = self.shared.ca.step(
            Box::new(move |authority, _, _, rng| authority.intend(tier, rng)),
            |_| Along::default(),
        );
        step.await.map(drop).map_err(words)
    }

    /// Made, and known to the plan, in one transaction.
    async fn prepare(&self, tier: Tier, plan: Plan) -> Result<(), String> {
        let step = self.shared.ca.step(
            Box::new(move |authority, keys, now, rng| match tier {
                Tier::Root => authority.prepare_root(keys, now, rng),
                Tier::Issuing => authority.prepare_issuing(keys, now, rng),
            }),
            move |journal| adopted(plan, tier, journal),
        );
        step.await.map_err(words)?;
        self.phase(Phase::Prepared);
        Ok(())
    }

    async fn adopt(&self, tier: Tier, id: String, mut plan: Plan) -> Result<(), String> {
        match tier {
            Tier::Root => plan.root = Some(id),
            Tier::Issuing => plan.issuing = Some(id),
        }
        self.store(&plan, Vec::new()).await?;
        self.phase(Phase::Prepared);
        Ok(())
    }

    async fn store(&self, plan: &Plan, events: Vec<Event>) -> Result<(), String> {
        let txn = Shared::put(Txn::new(), plan);
        let stored = self.shared.ca.audit().commit(txn, events).await;
        stored.map(drop).map_err(|error| error.to_string())
    }

    /// Waits until every live sidecar says that it trusts the new root.
    async fn distribute(&self, mut plan: Plan) -> Result<(), String> {
        self.phase(Phase::Distributing);
        let (revision, sequence) = self.shared.ca.bundle_revision().await.map_err(words)?;
        let (_, timeout) = self.rotation.limits();
        let deadline = Instant::now() + timeout;
        let registry = &self.shared.registry;
        let mut changes = registry.subscribe();
        let milestone = loop {
            changes.mark_unchanged();
            let milestone =
                registry.read(|table| trusting(table, revision, sequence, self.shared.ca.wall()));
            self.show(milestone.by.len(), &milestone.missing);
            if milestone.missing.is_empty() {
                break milestone;
            }
            if Instant::now() >= deadline {
                match plan.allow_missing {
                    true => break milestone,
                    false => {
                        return Err(format!(
                            "after {} s {} have not acknowledged the new root, which signs nothing before they do: {}; look at their logs and run it again, or leave them behind with --allow-missing",
                            timeout.as_secs(),
                            of(milestone.missing.len()),
                            milestone.missing.join(", ")
                        ));
                    }
                }
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return Err("the control node stops".to_owned());
                },
                () = sleep_until(deadline) => {}
            }
        };
        let asleep = self.shared.asleep().await.map_err(words)?;
        let event = Event::new("rotation.distributed", plan.number, "control")
            .with("acknowledged", milestone.by.len())
            .with("missing", milestone.missing.join(","));
        plan.distributed = Some(Milestone {
            asleep,
            ..milestone
        });
        self.name_missing(&plan);
        self.store(&plan, vec![event]).await
    }

    fn name_missing(&self, plan: &Plan) {
        self.progress.send_modify(|progress| {
            let milestones = [&plan.distributed, &plan.renewed];
            let missing = milestones.into_iter().flatten();
            progress.missing = missing.flat_map(|m| m.missing.clone()).collect();
            if let Some(last) = plan.renewed.as_ref().or(plan.distributed.as_ref()) {
                progress.asleep.clone_from(&last.asleep);
            }
        });
    }

    async fn activate(&self, tier: Tier, id: String) -> Result<(), String> {
        let step = self.shared.ca.step(
            Box::new(move |authority, _, now, _| authority.journal().activate(tier, &id, now)),
            |_| Along::default(),
        );
        step.await.map_err(words)?;
        self.phase(Phase::Activated);
        Ok(())
    }

    /// The control node first: sidecars verify it when they come for theirs.
    async fn renew(&self, id: &str, mut plan: Plan) -> Result<(), String> {
        self.shared.own.renew().await.map_err(words)?;
        let authority = self.shared.ca.authority();
        let slot = authority.journal().slot(Tier::Issuing, id);
        let slot = slot.map_err(|error| error.to_string())?;
        let serial = serial_of(&slot.certificate).map_err(|error| error.to_string())?;
        let last = self.last_old(&serial);
        plan.last_old = last.or(plan.last_old);
        self.store(&plan, Vec::new()).await?;
        let reason = match plan.tier {
            Tier::Root => "rotation of the root",
            Tier::Issuing => "rotation of the issuing CA",
        };
        let renewed = self
            .renew_all(Goal::Issuer(serial.clone()), reason, Some(&mut plan))
            .await;
        let mut milestone = self
            .shared
            .registry
            .read(|table| under(table, &serial, self.shared.ca.wall()));
        if let Err(reason) = renewed
            && (!plan.allow_missing || milestone.missing.is_empty())
        {
            return Err(reason);
        }
        milestone.asleep = self.shared.asleep().await.map_err(words)?;
        let event = Event::new("rotation.renewed", plan.number, "control")
            .with("sidecars", milestone.by.len())
            .with("missing", milestone.missing.join(","));
        plan.renewed = Some(milestone);
        self.name_missing(&plan);
        self.store(&plan, vec![event]).await
    }

    /// A live sidecar whose certificate is not under the new issuing CA.
    fn last_old(&self, serial: &str) -> Option<Seen> {
        let now = unix_ms(self.shared.ca.wall());
        self.shared.registry.read(|table| {
            let old = table
                .iter()
                .find(|s| s.is_live() && !s.issuer().is_empty() && s.issuer() != serial)?;
            Some(seen(old, now))
        })
    }

    async fn retire_issuing(&self, id: String, mut plan: Plan) -> Result<(), String> {
        if plan.tier == Tier::Issuing {
            plan.dropped_unix_ms = Some(unix_ms(self.shared.ca.wall()));
        }
        let step = self.shared.ca.step(
            Box::new(move |authority, _, now, _| authority.retire_issuing(&id, now)),
            move |_| along(&plan),
        );
        step.await.map_err(words)?;
        self.phase(Phase::Retired);
        Ok(())
    }

    /// Drops the root once nothing live chains to it: no connected sidecar, and unless told otherwise no certificate
    /// of one that is asleep.
    async fn retire_root(&self, id: String, mut plan: Plan) -> Result<Option<u64>, String> {
        let authority = self.shared.ca.authority();
        let children = children_of(authority.journal(), &id);
        let leaves = issued::live(&**self.shared.ca.store(), self.shared.ca.wall()).await;
        let leaves = leaves.map_err(|error| error.to_string())?;
        let last = leaves
            .iter()
            .filter(|leaf| children.iter().any(|slot| slot.id == leaf.issuer))
            .map(|leaf| leaf.not_after_unix + issued::SKEW.as_secs() + 1)
            .max();
        let connected = self.shared.registry.read(|table| chained(table, &children));
        if let Some(seen) = connected {
            plan.last_old = Some(seen.clone());
            self.store(&plan, Vec::new()).await?;
            if !plan.allow_missing {
                return Err(format!(
                    "{} still has a certificate under {id}: have it renew with `weft cert rotate`, then run it again",
                    seen.sidecar
                ));
            }
        }
        let now = unix_s(self.shared.ca.wall());
        if let Some(until) = last.filter(|until| !plan.now && *until > now) {
            return Ok(Some(until));
        }
        plan.dropped_unix_ms = Some(unix_ms(self.shared.ca.wall()));
        let step = self.shared.ca.step(
            Box::new(move |authority, _, now, _| {
                authority.journal().retire_now(Tier::Root, &id, now)
            }),
            move |_| along(&plan),
        );
        step.await.map_err(words)?;
        // Its certificate no longer goes along.
        self.shared.own.renew().await.map_err(words)?;
        self.phase(Phase::Retired);
        Ok(None)
    }

    /// The evidence is stored in the transaction that ends the rotation: there is no end without it.
    async fn finish(&self, plan: Plan) -> Result<(), String> {
        let shared = &self.shared;
        let evidence = evidence::of(&plan, &shared.ca).await;
        let txn = Shared::done(Txn::new());
        let txn = evidence::signed(&evidence, &shared.own, &shared.ca, txn).map_err(words)?;
        let event = Event::new("rotation.finished", plan.number, "control");
        let done = shared.ca.audit().commit(txn, vec![event]).await;
        done.map_err(|error| error.to_string())?;
        self.progress
            .send_modify(|progress| progress.evidence = Some(plan.number));
        Ok(())
    }

    /// Asks sidecars for new certificates until all have reached the goal.
    async fn renew_all(
        &self,
        goal: Goal,
        reason: &str,
        mut plan: Option<&mut Plan>,
    ) -> Result<(), String> {
        self.phase(Phase::Renewing);
        let (window, timeout) = self.rotation.limits();
        let deadline = Instant::now() + timeout;
        let registry = &self.shared.registry;
        let mut changes = registry.subscribe();
        let serial = match &goal {
            Goal::Issuer(serial) => serial.clone(),
            Goal::NewLeaf => String::new(),
        };
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
            if let Some(plan) = plan.as_mut()
                && let Some(seen) = self.last_old(&serial)
            {
                plan.last_old = Some(seen);
            }
            let complete = standing.is_complete();
            let look_again = standing.look_again.unwrap_or(deadline).min(deadline);
            if Instant::now() >= deadline && !complete {
                let reason = too_late(&standing, timeout);
                self.show_standing(standing);
                return Err(reason);
            }
            self.show_standing(standing);
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

    fn show(&self, done: usize, missing: &[String]) {
        self.progress.send_if_modified(|progress| {
            let total = done + missing.len();
            let before = (progress.done, progress.total);
            (progress.done, progress.total) = (done, total);
            progress.absent = missing.to_vec();
            before != (done, total)
        });
    }

    fn show_standing(&self, standing: Standing) {
        self.progress.send_if_modified(|progress| {
            let before = (progress.done, progress.total);
            progress.done = standing.done;
            progress.total = standing.total;
            progress.absent = standing.absent;
            progress.gone = standing.gone;
            progress.rotated = standing.rotated;
            before != (progress.done, progress.total)
        });
    }
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn words(error: ControlError) -> String {
    error.to_string()
}

/// What is stored along with a step that the plan takes note of.
fn along(plan: &Plan) -> Along {
    Along {
        txn: Shared::put(Txn::new(), plan),
        events: Vec::new(),
    }
}

fn adopted(mut plan: Plan, tier: Tier, journal: &Journal) -> Along {
    let prepared = journal.prepared(tier).map(|slot| slot.id.clone());
    match tier {
        Tier::Root => plan.root = prepared,
        Tier::Issuing => plan.issuing = prepared,
    }
    along(&plan)
}

fn of(count: usize) -> String {
    match count {
        1 => "1 sidecar".to_owned(),
        n => format!("{n} sidecars"),
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
