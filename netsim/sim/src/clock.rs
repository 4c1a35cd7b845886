//! Drives time: exact to the nanosecond over a timer that knows milliseconds.
//!
//! tokio's timer rounds up to its next millisecond. So the driver sleeps to the last millisecond before an
//! event, waits until nobody runs any more, moves the clock by the rest and delivers. What others sleep for
//! still ends on a millisecond, as it does on a real machine.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep_until};

use crate::world::Shared;

const TICK: u64 = 1_000_000;

/// Runs until the world ends.
#[allow(
    clippy::disallowed_methods,
    reason = "tokio's clock, which is paused: this is where virtual time is made"
)]
pub(crate) async fn drive(shared: Arc<Shared>) {
    loop {
        let Some(due) = shared.next_due() else {
            shared.changed.notified().await;
            continue;
        };
        let now = shared.now_ns();
        if due <= now {
            shared.deliver(now);
            // What the delivery sets off comes before the next event of a later moment.
            settle(&shared.polls).await;
            continue;
        }
        let whole = (due - now) / TICK;
        if whole > 0 {
            // A sleep that begins inside a millisecond ends as far inside another: the rest stays the same.
            let tick = shared.start + Duration::from_nanos((now / TICK + whole) * TICK);
            tokio::select! {
                biased;
                () = shared.changed.notified() => {}
                () = sleep_until(tick) => {}
            }
            continue;
        }
        settle(&shared.polls).await;
        // Others may have sent something that comes first.
        if shared.next_due() == Some(due) {
            advance(Duration::from_nanos(due - shared.now_ns())).await;
        }
    }
}

/// Returns when no task has run since the last look: with a huge event interval, a yield comes back when the
/// run queue is empty.
pub(crate) async fn settle(polls: &AtomicU64) {
    loop {
        let before = polls.load(Ordering::Relaxed);
        yield_now().await;
        if polls.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

/// Nanoseconds from `start` to now.
pub(crate) fn elapsed_ns(start: Instant) -> u64 {
    u64::try_from(Instant::now().duration_since(start).as_nanos()).unwrap_or(u64::MAX)
}
