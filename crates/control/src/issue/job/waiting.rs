//! Waiting for the sidecars, and telling those who watch how far they are.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use weft_ca::Tier;
use weft_ca::audit::Event;
use weft_certs::serial_of;
use weft_wire::Renew;

use super::{Job, words};
use crate::admin::types::{Phase, Seen};
use crate::issue::plan::{Milestone, Plan};
use crate::issue::tracker::{Goal, Standing, Tracker, ends_here};
use crate::issue::witness::{seen, trusting};
use crate::registry::Sidecar;
use crate::time::unix_ms;

impl Job {
    /// Waits until every live sidecar says that it trusts the new root.
    pub(super) async fn distribute(&self, mut plan: Plan) -> Result<(), String> {
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
                            "after {} s {} not acknowledged the new root, which signs nothing before they do: {} (--allow-missing leaves them behind)",
                            timeout.as_secs(),
                            have(milestone.missing.len()),
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

    /// Asks sidecars for new certificates until all have reached the goal.
    pub(super) async fn renew_all(
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
        let tracker =
            registry.read(|table| Tracker::new(goal, window, table, |s| self.rotation.concerns(s)));
        let mut tracker = tracker.with_ours(self.ours());
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

    pub(super) fn name_missing(&self, plan: &Plan) {
        self.progress.send_modify(|progress| {
            let milestones = [&plan.distributed, &plan.renewed];
            let missing = milestones.into_iter().flatten();
            let missing: BTreeSet<String> = missing.flat_map(|m| m.missing.clone()).collect();
            progress.missing = missing.into_iter().collect();
            if let Some(last) = plan.renewed.as_ref().or(plan.distributed.as_ref()) {
                progress.asleep.clone_from(&last.asleep);
            }
        });
    }

    /// A live sidecar whose certificate is not under the new issuing CA.
    pub(super) fn last_old(&self, serial: &str) -> Option<Seen> {
        let now = unix_ms(self.shared.ca.wall());
        let ours = self.ours();
        let is_old = |s: &&Sidecar| {
            let issuer = s.issuer();
            s.is_live() && !issuer.is_empty() && issuer != serial && ends_here(s, &ours)
        };
        self.shared.registry.read(|table| {
            let old = table.iter().find(is_old)?;
            Some(seen(old, now))
        })
    }

    /// Serials of this mesh's issuing CAs.
    pub(super) fn ours(&self) -> Vec<String> {
        let authority = self.shared.ca.authority();
        let issuing = authority.journal().slots(Tier::Issuing).iter();
        issuing
            .filter_map(|slot| serial_of(&slot.certificate).ok())
            .collect()
    }

    pub(super) fn show(&self, done: usize, missing: &[String]) {
        self.progress.send_if_modified(|progress| {
            let total = done + missing.len();
            let before = (progress.done, progress.total);
            (progress.done, progress.total) = (done, total);
            progress.absent = missing.to_vec();
            before != (done, total)
        });
    }

    pub(super) fn show_standing(&self, standing: Standing) {
        self.progress.send_if_modified(|progress| {
            let before = (progress.done, progress.total);
            progress.elsewhere = standing.elsewhere;
            progress.done = standing.done;
            progress.total = standing.total;
            progress.absent = standing.absent;
            progress.gone = standing.gone;
            progress.rotated = standing.rotated;
            before != (progress.done, progress.total)
        });
    }
}

fn have(count: usize) -> String {
    match count {
        1 => "1 sidecar has".to_owned(),
        n => format!("{n} sidecars have"),
    }
}

fn too_late(standing: &Standing, timeout: Duration) -> String {
    format!(
        "after {} s {} no new certificate yet, of {}: {}",
        timeout.as_secs(),
        have(standing.total - standing.done),
        standing.total,
        standing.absent.join(", ")
    )
}
