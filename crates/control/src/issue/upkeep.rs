//! Keeps the authority itself alive: root and issuing CA are replaced in time, a rotation that was cut off or waits
//! is brought to its end, and what has ended is forgotten.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_ca::Tier;
use weft_env::Env;

use super::jwt::keep_jwt_keys;
use super::revoking::prune;
use super::tokens::note_expired;
use super::verbs::roll_back;
use super::{CaService, Rotation, Rotations};
use crate::admin::types::RotateCa;

/// The schedule is in days; the clock may jump.
const LOOK: Duration = Duration::from_secs(60);
/// By whom the audit log says that it was done.
const BY: &str = "schedule";

/// Looks after the authority until `stop`. An unfinished rotation goes on after `grace`, when sidecars have
/// had the time to reconnect.
pub(crate) async fn upkeep(
    ca: CaService,
    rotations: Rotations,
    grace: Duration,
    env: Env,
    stop: CancellationToken,
) {
    let mut pause = match recover(&ca, &rotations).await {
        true => grace,
        false => Duration::ZERO,
    };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = LOOK;
        if let Err(error) = ca.keep_up().await {
            tracing::warn!(%error, "the authority's last step is not in force yet");
        }
        if let Err(error) = prune(&ca).await {
            tracing::warn!(%error, "what has ended is not forgotten yet");
        }
        if let Err(error) = note_expired(&ca).await {
            tracing::warn!(%error, "expired tokens are not in the audit log yet");
        }
        if let Err(error) = keep_jwt_keys(&ca).await {
            tracing::warn!(%error, "the keys for tokens are not renewed yet");
        }
        let Some(rotation) = wanted(&ca, &rotations, &env).await else {
            continue;
        };
        if let Err(reject) = rotations.start(rotation, BY).await {
            tracing::info!(reason = reject.problem.message, "not now");
        }
    }
}

/// After a restart: whether a rotation is to go on. An intent that belongs to none is taken back.
async fn recover(ca: &CaService, rotations: &Rotations) -> bool {
    match rotations.stored().await {
        Ok(Some(_)) => true,
        Ok(None) => {
            if let Err(error) = roll_back(ca).await {
                tracing::error!(%error, "a key that was being made is still there");
            }
            false
        }
        Err(error) => {
            tracing::error!(%error, "the rotation under way cannot go on");
            false
        }
    }
}

/// What is to be rotated now, if anything is.
async fn wanted(ca: &CaService, rotations: &Rotations, env: &Env) -> Option<Rotation> {
    if let Ok(Some(_)) = rotations.stored().await {
        return Some(Rotation::Resume);
    }
    let authority = ca.authority();
    let journal = authority.journal();
    let now = env.wall();
    // The root first: a new one brings a new issuing CA along. An offline root is for people to replace.
    let root_here = journal.active(Tier::Root).is_ok_and(|s| s.key.is_some());
    let root = root_here && journal.due(Tier::Root, now).is_some();
    let issuing = root_here && journal.due(Tier::Issuing, now).is_some();
    if !root && !issuing {
        return None;
    }
    tracing::info!(root, "an authority is due for replacement");
    Some(Rotation::Authority(RotateCa {
        root,
        ..RotateCa::default()
    }))
}
