//! The steps of a rotation: each is a transaction of the journal.

use weft_ca::audit::Event;
use weft_ca::{Journal, Tier};
use weft_certs::serial_of;

use super::{Job, words};
use crate::admin::types::Phase;
use crate::issue::authority::Along;
use crate::issue::plan::Plan;
use crate::issue::rotation::Shared;
use crate::issue::tracker::Goal;
use crate::issue::witness::{chained, children_of, under};
use crate::issue::{evidence, issued};
use crate::store::Txn;
use crate::time::{unix_ms, unix_s};

impl Job {
    pub(super) async fn discard(&self, tier: Tier, id: String) -> Result<(), String> {
        let step = self.shared.ca.step(
            Box::new(move |authority, _, now, _| authority.journal().retire_now(tier, &id, now)),
            |_| Along::default(),
        );
        step.await.map(drop).map_err(words)
    }

    pub(super) async fn intend(&self, tier: Tier) -> Result<(), String> {
        let step = self.shared.ca.step(
            Box::new(move |authority, _, _, rng| authority.intend(tier, rng)),
            |_| Along::default(),
        );
        step.await.map(drop).map_err(words)
    }

    /// Made, and known to the plan, in one transaction.
    pub(super) async fn prepare(&self, tier: Tier, plan: Plan) -> Result<(), String> {
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

    pub(super) async fn adopt(&self, tier: Tier, id: String, mut plan: Plan) -> Result<(), String> {
        match tier {
            Tier::Root => plan.root = Some(id),
            Tier::Issuing => plan.issuing = Some(id),
        }
        self.store(&plan, Vec::new()).await?;
        self.phase(Phase::Prepared);
        Ok(())
    }

    pub(super) async fn store(&self, plan: &Plan, events: Vec<Event>) -> Result<(), String> {
        let txn = Shared::put(Txn::new(), plan);
        let stored = self.shared.ca.audit().commit(txn, events).await;
        stored.map(drop).map_err(|error| error.to_string())
    }

    pub(super) async fn activate(&self, tier: Tier, id: String) -> Result<(), String> {
        let step = self.shared.ca.step(
            Box::new(move |authority, _, now, _| authority.journal().activate(tier, &id, now)),
            |_| Along::default(),
        );
        step.await.map_err(words)?;
        self.phase(Phase::Activated);
        Ok(())
    }

    /// The control node first: sidecars verify it when they come for theirs.
    pub(super) async fn renew(&self, id: &str, mut plan: Plan) -> Result<(), String> {
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
            .read(|table| under(table, &serial, &self.ours(), self.shared.ca.wall()));
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

    pub(super) async fn retire_issuing(&self, id: String, mut plan: Plan) -> Result<(), String> {
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
    pub(super) async fn retire_root(
        &self,
        id: String,
        mut plan: Plan,
    ) -> Result<Option<u64>, String> {
        let authority = self.shared.ca.authority();
        let children = children_of(authority.journal(), &id);
        let leaves = issued::live(&**self.shared.ca.store(), self.shared.ca.wall()).await;
        let leaves = leaves.map_err(|error| error.to_string())?;
        let last = leaves
            .iter()
            // A delegate's certificate is right under its root.
            .filter(|leaf| leaf.issuer == id || children.iter().any(|slot| slot.id == leaf.issuer))
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
    pub(super) async fn finish(&self, plan: Plan) -> Result<(), String> {
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
