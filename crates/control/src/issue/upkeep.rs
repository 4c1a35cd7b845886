//! Keeps the authority itself alive: the issuing CA is replaced in time, and a rotation that a restart cut
//! off is brought to its end.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_ca::Tier;
use weft_env::Env;

use super::{CaService, Rotation, Rotations};
use crate::admin::types::RotateCa;

/// The schedule is in days; the clock may jump.
const LOOK: Duration = Duration::from_secs(60);

/// Looks after the authority until `stop`. An unfinished rotation goes on after `grace`, when sidecars have
/// had the time to reconnect.
pub(crate) async fn upkeep(
    ca: CaService,
    rotations: Rotations,
    grace: Duration,
    env: Env,
    stop: CancellationToken,
) {
    let mut resume = rotations.is_unfinished();
    let mut pause = if resume { grace } else { Duration::ZERO };
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        pause = LOOK;
        let due = ca.authority().journal().due(Tier::Issuing, env.wall());
        let rotation = match (resume, due) {
            (true, _) => Rotation::Finish,
            (false, Some(due)) => {
                tracing::info!(?due, "the issuing CA is due for replacement");
                Rotation::Issuing(RotateCa::default())
            }
            (false, None) => continue,
        };
        resume = false;
        if let Err(reject) = rotations.start(rotation) {
            tracing::info!(reason = reject.problem.message, "not now");
        }
    }
}
