//! What the authority is, as data: slots and their transitions. Pure; each transition yields the next journal,
//! which is persisted before anything is done with it.
//!
//! ```text
//!   (made) ──> prepared ──activate──> active ──(next is activated)──> old ──retire──> removed
//!                  └───────────────────────── retire ────────────────────────────────────┘
//! ```
//!
//! Each tier has two slots: beside the one that signs there is at most one that is prepared or old.
//!
//! Prepared exists so that everyone knows an authority before it is used; old so that everyone still knows it
//! while something it signed is in use (ca-ops §9.2, §9.8, §10.5, §10.6).

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use weft_certs::{CertificateDer, TrustBundle, TrustDomain};

use crate::jwt::{JwtSlot, JwtSlots};
use crate::slot::{self, base64_ders};
use crate::when::{self, whole};
use crate::{CaConfig, Error, KeyId, Slot, SlotState, Tier};

/// Entries of the log that are kept.
const KEPT_LOG: usize = 128;
/// Clocks of relying parties may be this far apart.
const SKEW: Duration = Duration::from_secs(300);
const VERSION: u32 = 1;

/// One thing that happened to an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogEntry {
    /// When.
    #[serde(with = "when")]
    pub at: SystemTime,
    /// Which slot.
    pub slot: String,
    /// The state that it came to.
    pub state: SlotState,
}

/// What the rotation schedule asks for next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// Half of the active one's life is over, and none is prepared.
    Prepare,
    /// A sixth of the active one's life is left, and this one is prepared.
    Activate(String),
}

/// A key that is about to be made, written down before it is: after a crash it is known, and rolled back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The slot that it is for.
    pub slot: String,
    /// Its name.
    pub key: KeyId,
}

/// All authorities of a trust domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    version: u32,
    trust_domain: TrustDomain,
    /// `spiffe_sequence` of the bundle; grows with each change of the set of live roots and keys for tokens.
    pub(crate) sequence: u64,
    /// Number of the next slot of each tier; numbers are never used twice.
    next_root: u64,
    next_issuing: u64,
    roots: Vec<Slot>,
    issuing: Vec<Slot>,
    log: Vec<LogEntry>,
    /// A key that is being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    intent: Option<Intent>,
    /// The key of a certificate request that waits for an offline root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requested: Option<Intent>,
    /// Keys for tokens.
    #[serde(default, skip_serializing_if = "JwtSlots::is_unused")]
    pub(crate) jwt: JwtSlots,
    /// Roots of another provider of identities in this trust domain, which the operator has named.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "base64_ders")]
    foreign: Vec<CertificateDer<'static>>,
}

impl Journal {
    pub(crate) fn empty(trust_domain: TrustDomain) -> Self {
        Self {
            version: VERSION,
            trust_domain,
            sequence: 0,
            next_root: 1,
            next_issuing: 1,
            roots: Vec::new(),
            issuing: Vec::new(),
            log: Vec::new(),
            intent: None,
            requested: None,
            jwt: JwtSlots::default(),
            foreign: Vec::new(),
        }
    }

    /// The trust domain that these authorities serve.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// The edition of the trust bundle.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The slots of one tier, oldest first, with some that are removed.
    pub fn slots(&self, tier: Tier) -> &[Slot] {
        match tier {
            Tier::Root => &self.roots,
            Tier::Issuing => &self.issuing,
        }
    }

    /// What happened, oldest first; the last 128 entries.
    pub fn log(&self) -> &[LogEntry] {
        &self.log
    }

    /// The slot that signs.
    ///
    /// # Errors
    /// [`Error::Journal`] if there is none, which only a damaged journal has.
    pub fn active(&self, tier: Tier) -> Result<&Slot, Error> {
        self.in_state(tier, SlotState::Active)
            .ok_or_else(|| Error::Journal {
                reason: format!("it has no active {} authority", tier.as_str()),
            })
    }

    /// The slot that is prepared, of which there is at most one.
    pub fn prepared(&self, tier: Tier) -> Option<&Slot> {
        self.in_state(tier, SlotState::Prepared)
    }

    /// The slot of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchSlot`].
    pub fn slot(&self, tier: Tier, id: &str) -> Result<&Slot, Error> {
        let found = self.slots(tier).iter().find(|slot| slot.id == id);
        found.ok_or_else(|| Error::NoSuchSlot {
            slot: id.to_owned(),
        })
    }

    fn in_state(&self, tier: Tier, state: SlotState) -> Option<&Slot> {
        self.slots(tier).iter().find(|slot| slot.state == state)
    }

    /// Whom to trust: all roots and keys for tokens but removed ones, so that each is known before and after its use,
    /// and the roots of another provider.
    pub fn bundle(&self) -> TrustBundle {
        let live = self.roots.iter().filter(|slot| slot.is_live());
        let mut roots: Vec<_> = live.map(|slot| slot.certificate.clone()).collect();
        for root in &self.foreign {
            if !roots.contains(root) {
                roots.push(root.clone());
            }
        }
        TrustBundle {
            trust_domain: self.trust_domain.clone(),
            sequence: self.sequence,
            roots,
            jwt_keys: self.jwt.live().filter_map(JwtSlot::public_key).collect(),
        }
    }

    /// Roots of another provider of identities in this trust domain, which the mesh trusts beside its own.
    pub fn foreign(&self) -> &[CertificateDer<'static>] {
        &self.foreign
    }

    /// With these as the roots of another provider, in place of those that there were: whoever is not among them is
    /// trusted no more.
    #[must_use]
    pub fn with_foreign(&self, roots: Vec<CertificateDer<'static>>) -> Self {
        let mut next = self.clone();
        if next.foreign != roots {
            next.foreign = roots;
            next.sequence += 1;
        }
        next
    }

    /// The key that was being made when this was written.
    pub fn intent(&self) -> Option<&Intent> {
        self.intent.as_ref()
    }

    /// The key whose certificate request waits for an offline root.
    pub fn requested(&self) -> Option<&Intent> {
        self.requested.as_ref()
    }

    /// Every key that this journal still needs.
    pub fn keys(&self) -> impl Iterator<Item = &KeyId> {
        let slots = self.roots.iter().chain(&self.issuing);
        slots
            .filter(|slot| slot.is_live())
            .filter_map(|slot| slot.key.as_ref())
            .chain(self.intent.iter().chain(&self.requested).map(|i| &i.key))
            .chain(self.jwt.live().map(|slot| &slot.key))
    }

    /// Every key without which the authority cannot go on: not those that were only intended.
    pub fn live_keys(&self) -> impl Iterator<Item = &KeyId> {
        let intended = self.intent.as_ref().map(|intent| &intent.key);
        self.keys().filter(move |key| Some(*key) != intended)
    }

    /// The tier and slot of this name.
    ///
    /// # Errors
    /// [`Error::NoSuchSlot`].
    pub fn find(&self, id: &str) -> Result<(Tier, &Slot), Error> {
        [Tier::Root, Tier::Issuing]
            .into_iter()
            .find_map(|tier| Some((tier, self.slot(tier, id).ok()?)))
            .ok_or_else(|| Error::NoSuchSlot {
                slot: id.to_owned(),
            })
    }

    /// What the schedule of ca-ops §10.5 asks for at `now`. Activation also needs the readiness of the mesh (99 % of
    /// the nodes know the bundle), which the caller knows.
    pub fn due(&self, tier: Tier, now: SystemTime) -> Option<Due> {
        let active = self.in_state(tier, SlotState::Active)?;
        let life = active
            .not_after
            .duration_since(active.not_before)
            .unwrap_or_default();
        let left = active.not_after.duration_since(now).unwrap_or_default();
        match self.prepared(tier) {
            None if left <= life / 2 => Some(Due::Prepare),
            Some(next) if left <= life / 6 => Some(Due::Activate(next.id.clone())),
            _ => None,
        }
    }

    /// The name that the next slot of a tier will have.
    ///
    /// # Errors
    /// [`Error::Transition`] if the tier's other slot is taken.
    pub(crate) fn next_id(&self, tier: Tier) -> Result<String, Error> {
        if let Some(old) = self.in_state(tier, SlotState::Old) {
            let reason = "it must be removed before another can be prepared: its rotation goes on by itself, \
                          and `weft ca revoke` cuts it short";
            return Err(transition(old, reason));
        }
        if let Some(waiting) = self.prepared(tier) {
            let reason = "activate it or retire it before preparing another";
            return Err(transition(waiting, reason));
        }
        let number = match tier {
            Tier::Root => self.next_root,
            Tier::Issuing => self.next_issuing,
        };
        Ok(format!("{}-{number}", tier.as_str()))
    }

    /// With the intent to make a key for the next slot of a tier.
    pub(crate) fn with_intent(&self, tier: Tier, key: KeyId) -> Result<Self, Error> {
        let slot = self.next_id(tier)?;
        let mut next = self.clone();
        next.intent = Some(Intent { slot, key });
        Ok(next)
    }

    /// Without a key that was to be made.
    pub(crate) fn without_intent(&self) -> Self {
        let mut next = self.clone();
        next.intent = None;
        next
    }

    /// The intended key has been made, for a request that waits; of an earlier one nothing is expected any more.
    pub(crate) fn with_requested(&self, intent: Intent) -> Self {
        let mut next = self.clone();
        next.intent = None;
        next.requested = Some(intent);
        next
    }

    /// With a freshly made authority, in state prepared.
    pub(crate) fn with_prepared(
        &self,
        tier: Tier,
        slot: Slot,
        now: SystemTime,
    ) -> Result<Self, Error> {
        debug_assert_eq!(slot.state, SlotState::Prepared);
        let expected = self.next_id(tier)?;
        debug_assert_eq!(slot.id, expected);
        let mut next = self.clone();
        next.intent = None;
        if next.requested.as_ref().map(|r| &r.key) == slot.key.as_ref() {
            next.requested = None;
        }
        match tier {
            Tier::Root => {
                next.next_root += 1;
                next.sequence += 1;
                next.roots.push(slot);
            }
            Tier::Issuing => {
                next.next_issuing += 1;
                next.issuing.push(slot);
            }
        }
        next.note(&expected, SlotState::Prepared, now);
        Ok(next)
    }

    /// Makes a prepared authority the one that signs; the one that did becomes old.
    ///
    /// # Errors
    /// [`Error::Transition`] if it is not prepared, [`Error::NoSuchSlot`].
    pub fn activate(&self, tier: Tier, id: &str, now: SystemTime) -> Result<Self, Error> {
        let slot = self.slot(tier, id)?;
        if slot.state != SlotState::Prepared {
            return Err(transition(
                slot,
                "only a prepared authority can be activated",
            ));
        }
        let mut next = self.clone();
        if let Some(current) = self.in_state(tier, SlotState::Active) {
            next.set(tier, &current.id, SlotState::Old, now);
            let root = next
                .roots
                .iter_mut()
                .find(|root| current.issuer.as_ref() == Some(&root.id));
            if let Some(root) = root {
                root.signed_until = Some(whole(now));
            }
        }
        next.set(tier, id, SlotState::Active, now);
        Ok(next)
    }

    /// Notes that the key of an authority may be in other hands. From now on nothing is sent along that builds on it.
    ///
    /// # Errors
    /// [`Error::Transition`] for the one that signs, or one that is gone.
    pub fn taint(&self, tier: Tier, id: &str, now: SystemTime) -> Result<Self, Error> {
        let slot = self.slot(tier, id)?;
        match slot.state {
            SlotState::Active => {
                let reason =
                    "rotate it first with --now: its successor must sign before it is distrusted";
                return Err(transition(slot, reason));
            }
            SlotState::Removed => return Err(transition(slot, "nobody trusts it any more")),
            SlotState::Prepared | SlotState::Old => {}
        }
        let mut next = self.clone();
        let state = slot.state;
        if let Some(slot) = next.slots_mut(tier).iter_mut().find(|slot| slot.id == id) {
            slot.tainted = true;
        }
        next.note(id, state, now);
        Ok(next)
    }

    /// When a root that signs no more may go: the last leaf below it has ended then. `None`: at once.
    pub fn needed_until(&self, root: &Slot, config: &CaConfig) -> Option<SystemTime> {
        root.signed_until
            .map(|stopped| stopped + config.max_leaf_ttl + SKEW)
    }

    /// As [`retire`](Self::retire), whatever may still chain to it: for one that is tainted, or when it is known that
    /// nothing live does.
    ///
    /// # Errors
    /// [`Error::Transition`].
    pub fn retire_now(&self, tier: Tier, id: &str, now: SystemTime) -> Result<Self, Error> {
        let slot = self.slot(tier, id)?;
        Self::check_retirable(slot)?;
        if tier == Tier::Root {
            self.check_childless(slot)?;
        }
        Ok(self.removed(tier, id, now))
    }

    /// Removes an old authority, or discards a prepared one.
    ///
    /// An issuing CA may go at once: peers carry its certificate along with their leaves and check it against the
    /// root, so what it signed stays good; only its key is destroyed. A root may go when nothing live chains to it.
    ///
    /// # Errors
    /// [`Error::Transition`] for the active one, or a root that an issuing CA still depends on;
    /// [`Error::StillNeeded`] for a root under which leaves may still live.
    pub fn retire(
        &self,
        tier: Tier,
        id: &str,
        config: &CaConfig,
        now: SystemTime,
    ) -> Result<Self, Error> {
        let slot = self.slot(tier, id)?;
        Self::check_retirable(slot)?;
        if tier == Tier::Root {
            self.check_childless(slot)?;
            match self.needed_until(slot, config) {
                Some(until) if now < until => {
                    return Err(Error::StillNeeded {
                        slot: slot.id.clone(),
                        until,
                    });
                }
                _ => {}
            }
        }
        Ok(self.removed(tier, id, now))
    }

    fn check_retirable(slot: &Slot) -> Result<(), Error> {
        match slot.state {
            SlotState::Active => Err(transition(
                slot,
                "activate its successor before retiring it",
            )),
            SlotState::Removed => Err(transition(slot, "there is nothing left to retire")),
            SlotState::Prepared | SlotState::Old => Ok(()),
        }
    }

    /// No issuing CA is below this root.
    fn check_childless(&self, root: &Slot) -> Result<(), Error> {
        let mut children = self
            .issuing
            .iter()
            .filter(|child| child.issuer.as_deref() == Some(&root.id));
        if children.any(Slot::is_live) {
            return Err(transition(
                root,
                "an issuing authority under it is not removed yet: rotate or retire that first",
            ));
        }
        Ok(())
    }

    fn removed(&self, tier: Tier, id: &str, now: SystemTime) -> Self {
        let mut next = self.clone();
        next.set(tier, id, SlotState::Removed, now);
        if tier == Tier::Root {
            next.sequence += 1;
        }
        slot::forget_removed(next.slots_mut(tier), Slot::is_live);
        next
    }

    fn set(&mut self, tier: Tier, id: &str, state: SlotState, now: SystemTime) {
        if let Some(slot) = self.slots_mut(tier).iter_mut().find(|slot| slot.id == id) {
            slot.state = state;
            slot.since = whole(now);
        }
        self.note(id, state, now);
    }

    /// With one more slot, whatever its state: a journal that begins with authorities made elsewhere.
    pub(crate) fn push(&mut self, tier: Tier, slot: Slot) {
        self.slots_mut(tier).push(slot);
    }

    fn slots_mut(&mut self, tier: Tier) -> &mut Vec<Slot> {
        match tier {
            Tier::Root => &mut self.roots,
            Tier::Issuing => &mut self.issuing,
        }
    }

    pub(crate) fn note(&mut self, slot: &str, state: SlotState, now: SystemTime) {
        let excess = (self.log.len() + 1).saturating_sub(KEPT_LOG);
        self.log.drain(..excess);
        self.log.push(LogEntry {
            at: whole(now),
            slot: slot.to_owned(),
            state,
        });
    }

    /// What a loaded journal must be, whatever was on the disk.
    pub(crate) fn check(&self, trust_domain: &TrustDomain) -> Result<(), Error> {
        let fail = |reason: String| Err(Error::Journal { reason });
        if self.version != VERSION {
            return fail(format!(
                "it is of version {}, this program knows version {VERSION}",
                self.version
            ));
        }
        if self.trust_domain != *trust_domain {
            return fail(format!(
                "it is of trust domain {}, the settings say {trust_domain}",
                self.trust_domain
            ));
        }
        for tier in [Tier::Root, Tier::Issuing] {
            self.active(tier)?;
            for state in [SlotState::Active, SlotState::Prepared] {
                if self
                    .slots(tier)
                    .iter()
                    .filter(|slot| slot.state == state)
                    .count()
                    > 1
                {
                    return fail(format!(
                        "it has more than one {state} {} authority",
                        tier.as_str()
                    ));
                }
            }
        }
        for slot in self.issuing.iter().filter(|slot| slot.is_live()) {
            let root = slot.issuer.as_deref().unwrap_or_default();
            if !self.roots.iter().any(|r| r.id == root && r.is_live()) {
                return fail(format!(
                    "{} was signed by {root:?}, which is not among the roots",
                    slot.id
                ));
            }
        }
        self.jwt.check()
    }
}

fn transition(slot: &Slot, reason: &'static str) -> Error {
    Error::Transition {
        slot: slot.id.clone(),
        state: slot.state,
        reason,
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
