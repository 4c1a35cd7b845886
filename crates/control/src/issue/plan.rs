//! A rotation as it is stored: what it replaces, how far it has come, who has said so. The next step is a pure
//! function of it and the authority's journal, so that going on after a restart is the same as going on.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use weft_ca::{Error as CaError, Journal, Slot, SlotState, Tier};

use crate::admin::types::{Named, Seen};
use crate::time::unix_ms;

/// A rotation of the authority under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// Counts rotations of this mesh.
    pub(crate) number: u64,
    pub(crate) tier: Tier,
    pub(crate) started_unix_ms: u64,
    /// Do not wait for certificates of sidecars that are not connected.
    pub(crate) now: bool,
    /// Go on without sidecars that do not answer in time, and name them.
    pub(crate) allow_missing: bool,
    /// What signed at its begin.
    pub(crate) old: Vec<Named>,
    /// Slot of the new root, once it is known.
    pub(crate) root: Option<String>,
    /// Slot of the new issuing CA, once it is known.
    pub(crate) issuing: Option<String>,
    /// Every live sidecar knows the new root.
    pub(crate) distributed: Option<Milestone>,
    /// Every live sidecar has a certificate under the new issuing CA.
    pub(crate) renewed: Option<Milestone>,
    /// When a live sidecar was last seen with a certificate under the old one, and which.
    pub(crate) last_old: Option<Seen>,
    /// When the old one was dropped.
    pub(crate) dropped_unix_ms: Option<u64>,
}

/// Something that every sidecar has to come to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Milestone {
    pub(crate) at_unix_ms: u64,
    /// Who has, and when.
    pub(crate) by: Vec<Seen>,
    /// Who was connected and has not, by name.
    pub(crate) missing: Vec<String>,
    /// Identities with certificates that were not connected.
    pub(crate) asleep: Vec<String>,
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Next {
    /// Discard an authority that was prepared for something else.
    Discard(Tier, String),
    /// Write down the name of the key that is about to be made.
    Intend(Tier),
    /// Make the authority.
    Prepare(Tier),
    /// One is prepared: it is the one.
    Adopt(Tier, String),
    /// Wait until every live sidecar trusts the new root.
    Distribute,
    Activate(Tier, String),
    /// Have every sidecar take a certificate under this issuing CA.
    Renew(String),
    /// Drop an old issuing CA.
    RetireIssuing(String),
    /// Wait until nothing live chains to this root, then drop it.
    RetireRoot(String),
    /// Sign the evidence.
    Finish,
}

impl Next {
    /// For the log.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Discard(..) => "discard what was prepared for something else",
            Self::Intend(_) => "name the next key",
            Self::Prepare(_) => "make the next authority",
            Self::Adopt(..) => "take the one that is prepared",
            Self::Distribute => "wait until every sidecar trusts the new root",
            Self::Activate(..) => "sign with the new one",
            Self::Renew(_) => "have every sidecar renew",
            Self::RetireIssuing(_) => "drop the old issuing CA",
            Self::RetireRoot(_) => "drop the old root",
            Self::Finish => "sign the evidence",
        }
    }
}

impl Plan {
    /// A rotation that begins.
    pub(crate) fn new(number: u64, tier: Tier, old: Vec<Named>, now: SystemTime) -> Self {
        Self {
            number,
            tier,
            started_unix_ms: unix_ms(now),
            now: false,
            allow_missing: false,
            old,
            root: None,
            issuing: None,
            distributed: None,
            renewed: None,
            last_old: None,
            dropped_unix_ms: None,
        }
    }

    /// Whether all that is left is to drop the old root, once nothing chains to it.
    pub(crate) fn waits(&self) -> bool {
        self.tier == Tier::Root && self.renewed.is_some()
    }

    fn slot_of(&self, tier: Tier) -> Option<&String> {
        match tier {
            Tier::Root => self.root.as_ref(),
            Tier::Issuing => self.issuing.as_ref(),
        }
    }

    /// The next step.
    ///
    /// # Errors
    /// [`CaError::NoSuchSlot`] if somebody removed an authority that this is about.
    pub(crate) fn next(&self, journal: &Journal) -> Result<Next, CaError> {
        if self.tier == Tier::Root
            && let Some(step) = self.next_of(Tier::Root, journal)?
        {
            return Ok(step);
        }
        if let Some(step) = self.next_of(Tier::Issuing, journal)? {
            return Ok(step);
        }
        let issuing = journal.active(Tier::Issuing)?.id.clone();
        if self.renewed.is_none() {
            return Ok(Next::Renew(issuing));
        }
        let in_old = |tier| {
            let mut slots = journal.slots(tier).iter();
            slots.find(|slot: &&Slot| slot.state == SlotState::Old)
        };
        if let Some(old) = in_old(Tier::Issuing) {
            return Ok(Next::RetireIssuing(old.id.clone()));
        }
        match in_old(Tier::Root).filter(|_| self.tier == Tier::Root) {
            Some(old) => Ok(Next::RetireRoot(old.id.clone())),
            None => Ok(Next::Finish),
        }
    }

    /// The steps until an authority signs.
    fn next_of(&self, tier: Tier, journal: &Journal) -> Result<Option<Next>, CaError> {
        let Some(id) = self.slot_of(tier) else {
            return Ok(Some(self.make(tier, journal)?));
        };
        let slot = journal.slot(tier, id)?;
        match (slot.state, tier) {
            (SlotState::Prepared, Tier::Root) if self.distributed.is_none() => {
                Ok(Some(Next::Distribute))
            }
            (SlotState::Prepared, _) => Ok(Some(Next::Activate(tier, id.clone()))),
            (SlotState::Active, _) => Ok(None),
            (SlotState::Old | SlotState::Removed, _) => {
                Err(CaError::NoSuchSlot { slot: id.clone() })
            }
        }
    }

    fn make(&self, tier: Tier, journal: &Journal) -> Result<Next, CaError> {
        if let Some(prepared) = journal.prepared(tier) {
            let root = journal.active(Tier::Root)?;
            let fits = tier == Tier::Root || prepared.issuer.as_ref() == Some(&root.id);
            return Ok(match fits && !prepared.tainted {
                true => Next::Adopt(tier, prepared.id.clone()),
                false => Next::Discard(tier, prepared.id.clone()),
            });
        }
        let intended = journal
            .intent()
            .is_some_and(|intent| intent.slot.starts_with(tier.as_str()));
        Ok(match intended {
            true => Next::Prepare(tier),
            false => Next::Intend(tier),
        })
    }
}

/// The steps of a rotation that begins now, in words: what `--dry-run` shows.
pub(crate) fn preview(plan: &Plan, journal: &Journal, live: usize) -> Vec<String> {
    let has = |tier| journal.prepared(tier).map(|slot| slot.id.clone());
    let mut steps = Vec::new();
    let make = |tier: Tier| match has(tier) {
        Some(id) => format!("use {id}, which is prepared"),
        None => format!("make a new {} authority", tier.as_str()),
    };
    if plan.tier == Tier::Root {
        steps.push(make(Tier::Root));
        steps.push(format!(
            "push it, and wait until all {live} connected sidecars acknowledge that they trust it{}",
            if plan.allow_missing { " (those that do not in time are named and left behind)" } else { "" }
        ));
        steps.push("sign with it from then on".to_owned());
        steps.push("make an issuing authority under it".to_owned());
    } else {
        steps.push(make(Tier::Issuing));
    }
    steps.push("sign leaves with the new issuing authority".to_owned());
    steps.push(format!(
        "have all {live} connected sidecars take new certificates"
    ));
    for named in &plan.old {
        if plan.tier == Tier::Root || named.role == "issuing" {
            let when = match (named.role.as_str(), plan.now) {
                ("root", false) => "once no certificate that chains to it is alive",
                _ => "at once",
            };
            steps.push(format!("drop {} {when}", named.name));
        }
    }
    steps.push("sign the evidence".to_owned());
    steps
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
