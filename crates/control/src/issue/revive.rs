//! Brings an authority back to life whose issuing CA ended while the control node was off: without one the node has no
//! certificate of its own, so nobody could ask it for a rotation.

use std::time::SystemTime;

use weft_ca::audit::Event;
use weft_ca::{Authority, Error as CaError, Journal, Slot, SlotState, Tier};

use super::CaService;
use super::authority::Along;
use super::plan::Plan;
use super::rotation::{Shared, stored};
use super::verbs::roll_back;
use crate::error::ControlError;

/// More than it takes: room made, key named, key made, brought into use.
const MAX_STEPS: usize = 8;

/// The next step towards an issuing CA that can sign.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    /// Nothing: it can.
    Alive,
    /// Free the slot of one that is of no use.
    Discard(String),
    Intend,
    Prepare,
    /// Let it sign, and drop the one that has ended: nothing that it signed is alive.
    Replace {
        ended: String,
        by: String,
    },
}

fn next(authority: &Authority, now: SystemTime) -> Result<Next, CaError> {
    let journal = authority.journal();
    let active = journal.active(Tier::Issuing)?;
    if authority.can_sign(active, now) {
        return Ok(Next::Alive);
    }
    let root = journal.active(Tier::Root)?;
    let fits = |slot: &&Slot| {
        slot.issuer.as_ref() == Some(&root.id) && !slot.tainted && authority.can_sign(slot, now)
    };
    let mut slots = journal.slots(Tier::Issuing).iter();
    let prepared = journal.prepared(Tier::Issuing);
    if let Some(slot) = prepared.filter(fits) {
        return Ok(Next::Replace {
            ended: active.id.clone(),
            by: slot.id.clone(),
        });
    }
    let in_the_way = |slot: &&Slot| matches!(slot.state, SlotState::Prepared | SlotState::Old);
    if let Some(slot) = slots.find(in_the_way) {
        return Ok(Next::Discard(slot.id.clone()));
    }
    let intended = journal.intent();
    Ok(
        match intended.is_some_and(|intent| intent.slot.starts_with(Tier::Issuing.as_str())) {
            true => Next::Prepare,
            false => Next::Intend,
        },
    )
}

/// Sees to it that there is an issuing CA that can sign now, as far as the root allows.
///
/// # Errors
/// [`ControlError::AuthorityEnded`] if there is none and none can be made; [`ControlError::ClockBehind`].
pub(crate) async fn revive(ca: &CaService) -> Result<(), ControlError> {
    check_clock(ca).await?;
    for _ in 0..MAX_STEPS {
        let (authority, now) = (ca.authority(), ca.wall());
        let ended = authority.journal().active(Tier::Issuing)?;
        let hopeless = |reason: CaError| ControlError::AuthorityEnded {
            slot: ended.id.clone(),
            at: ended.not_after,
            now,
            reason,
        };
        match next(&authority, now)? {
            Next::Alive => return Ok(()),
            Next::Discard(id) => discard(ca, id).await?,
            Next::Intend => intend(ca).await?,
            Next::Prepare => {
                tracing::warn!(
                    issuing = ended.id,
                    root = authority.journal().active(Tier::Root)?.id,
                    "the issuing CA does not hold by this machine's clock (was the node off for so long? is the clock right?): another one is made in its place"
                );
                match prepare(ca).await {
                    Err(ControlError::Ca(reason)) => {
                        roll_back(ca).await?;
                        return Err(hopeless(reason));
                    }
                    done => done?,
                }
            }
            Next::Replace { ended, by } => replace(ca, ended, by).await?,
        }
    }
    Err(ControlError::Damaged {
        what: "the issuing CA that has ended cannot be replaced".to_owned(),
    })
}

/// An issuing CA that has not begun: either the clock is behind now, or it was ahead when that CA was made. Then
/// everything that was recorded before it, by the clock as it was, lies in the past; else nothing is touched.
async fn check_clock(ca: &CaService) -> Result<(), ControlError> {
    let (authority, now) = (ca.authority(), ca.wall());
    let active = authority.journal().active(Tier::Issuing)?;
    if active.not_before <= now {
        return Ok(());
    }
    let before = ca.audit().last_before(active.not_before).await?;
    match before {
        Some(before) if before <= now => Ok(()),
        Some(_) | None => Err(ControlError::ClockBehind {
            slot: active.id.clone(),
            from: active.not_before,
            now,
        }),
    }
}

async fn discard(ca: &CaService, id: String) -> Result<(), ControlError> {
    let retire =
        move |authority: &Authority, now| authority.journal().retire_now(Tier::Issuing, &id, now);
    let step = ca.step(
        Box::new(move |authority, _, now, _| retire(authority, now)),
        |_| Along::default(),
    );
    step.await.map(drop)
}

async fn intend(ca: &CaService) -> Result<(), ControlError> {
    // One for another tier belongs to a rotation, which makes it anew.
    roll_back(ca).await?;
    let step = ca.step(
        Box::new(|authority, _, _, rng| authority.intend(Tier::Issuing, rng)),
        |_| Along::default(),
    );
    step.await.map(drop)
}

async fn prepare(ca: &CaService) -> Result<(), ControlError> {
    let step = ca.step(
        Box::new(|authority, keys, now, rng| authority.prepare_issuing(keys, now, rng)),
        |_| Along::default(),
    );
    step.await.map(drop)
}

/// A rotation that had got as far as the one that has ended goes on with the new one.
async fn replace(ca: &CaService, ended: String, by: String) -> Result<(), ControlError> {
    let plan = stored(&**ca.store()).await?;
    let plan = plan.filter(|plan| plan.issuing.as_ref() == Some(&ended));
    let event = Event::new("authority.revived", &by, "control").with("ended", &ended);
    let along = {
        let by = by.clone();
        move |_: &Journal| {
            let mut along = Along::event(event);
            if let Some(plan) = plan {
                let issuing = Some(by);
                along.txn = Shared::put(along.txn, &Plan { issuing, ..plan });
            }
            along
        }
    };
    let step = ca.step(
        Box::new(move |authority, _, now, _| {
            let active = authority.journal().activate(Tier::Issuing, &by, now)?;
            active.retire_now(Tier::Issuing, &ended, now)
        }),
        along,
    );
    step.await.map(drop)
}

#[cfg(test)]
#[path = "revive_tests.rs"]
mod tests;
