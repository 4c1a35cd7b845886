//! Enforces certificates for the life of every connection, not only at its handshake.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weft_certs::Identity;
use weft_env::mutants::{Mutant, broken};

use crate::Direction;
use crate::core::Core;
use crate::lifetime::{EndReason, Verdict};

/// The wall clock can be set while we sleep, so no sleep is longer than this.
pub(crate) const LONGEST_SLEEP: Duration = Duration::from_secs(5);
const SHORTEST_SLEEP: Duration = Duration::from_millis(20);
/// Verifying a chain takes some 100 µs: other tasks get their turn in between.
const VERIFIED_IN_A_ROW: usize = 8;

/// Looks after all connections of an endpoint until it ends.
pub(crate) async fn watch(core: Arc<Core>) {
    let mut changes = core.identity.subscribe();
    let token = core.tasks.token();
    let mut seen = core.identity.current();
    // Nobody is connected yet: what changed since the endpoint was bound holds for all who come.
    core.enforced
        .send_modify(|enforced| enforced.bundle_generation = seen.bundle_generation);
    loop {
        // Marked as seen before it is read: a change in between is looked at again, never missed.
        changes.borrow_and_update();
        let identity = core.identity.current();
        if identity.bundle_generation != seen.bundle_generation {
            verify_again(&core, &identity).await;
            core.enforced.send_modify(|enforced| {
                enforced.bundle_generation = identity.bundle_generation;
            });
        }
        let changed = identity.generation != seen.generation
            || identity.bundle_generation != seen.bundle_generation;
        if changed {
            core.pool.forget_failures();
            core.quic.forget_sessions();
        }
        seen = identity;
        let wait = look(&core, &seen);
        tokio::select! {
            biased;
            () = token.cancelled() => return,
            _ = changes.changed() => {}
            () = core.registry.look.notified() => {}
            () = sleep(wait) => {}
        }
    }
}

/// Ends what the new bundles no longer vouch for.
async fn verify_again(core: &Core, identity: &Identity) {
    for (index, link) in core.registry.all().into_iter().enumerate() {
        core.verify(&link, identity);
        if index % VERIFIED_IN_A_ROW == VERIFIED_IN_A_ROW - 1 {
            tokio::task::yield_now().await;
        }
    }
}

/// Judges every connection. Returns when the next one is due.
fn look(core: &Core, identity: &Identity) -> Duration {
    let (wall, now) = (core.env.wall(), Instant::now());
    let mut next = LONGEST_SLEEP;
    for link in core.registry.all() {
        if let Some(decide) = link.doubt() {
            if now >= decide {
                core.verify(&link, identity);
            }
            next = next.min(decide.saturating_duration_since(now));
        }
        let terms = link.terms_now();
        match terms.judge(wall, identity.generation) {
            Verdict::Keep => {
                let idle_limit = core.config.limits.pool_idle;
                if terms.direction == Direction::Outbound && link.idle_for(now) >= idle_limit {
                    link.retire(EndReason::Idle);
                }
            }
            Verdict::Retire(reason) => {
                link.retire(reason);
            }
            Verdict::Close(_) if broken(Mutant::ForgetsExpiry) => {}
            Verdict::Close(reason) => {
                tracing::info!(
                    connection = link.id,
                    peer = %link.remote(),
                    direction = %terms.direction,
                    reason = reason.label(),
                    requests = (link.active)(),
                    "connection closed: {reason}"
                );
                link.close(reason);
                continue;
            }
        }
        if let Some(due) = terms.next_change(wall) {
            next = next.min(due);
        }
    }
    next.max(SHORTEST_SLEEP)
}
