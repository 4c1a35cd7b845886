//! Carries a rotation out, step by step. Every step is stored before what follows from it.
//!
//! `steps` are the journal's transitions, `waiting` is for what sidecars have to do between them.

mod steps;
mod waiting;

use std::sync::Arc;

use tokio::sync::watch;
use weft_ca::Tier;
use weft_ca::audit::Event;
use weft_certs::serial_of;

use super::plan::{Next, Plan};
use super::rotation::{Rotation, Shared};
use super::tracker::Goal;
use crate::admin::types::{Phase, Progress};
use crate::error::ControlError;

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
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn words(error: ControlError) -> String {
    error.to_string()
}
