//! The monotonic clock, and waiting for a point in it.

use std::time::Duration;

use rustix::thread::clock_nanosleep_absolute;
use rustix::time::{ClockId, Timespec, clock_gettime};

/// The last stretch before a deadline is spent awake: a wake-up takes that long where nothing disturbs it.
const SPIN: Duration = Duration::from_micros(30);

/// Time since a start, as the model counts it. Copies count from the same start, in every process.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Duration,
}

impl Clock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: monotonic(),
        }
    }

    /// Time since its start.
    #[must_use]
    pub fn now(&self) -> Duration {
        monotonic().saturating_sub(self.origin)
    }

    /// The kernel's absolute time of `at`.
    pub(crate) fn absolute(&self, at: Duration) -> Timespec {
        let at = self.origin + at;
        Timespec {
            tv_sec: i64::try_from(at.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: at.subsec_nanos().into(),
        }
    }

    /// Returns at `at`, or at once if that is past: sleeps to shortly before it, then watches the clock.
    pub fn sleep_until(&self, at: Duration) {
        let wake = self.absolute(at.saturating_sub(SPIN));
        while at.saturating_sub(self.now()) > SPIN {
            // A signal may end the sleep early; then the loop sleeps again.
            let _ = clock_nanosleep_absolute(ClockId::Monotonic, &wake);
        }
        while self.now() < at {
            std::hint::spin_loop();
        }
    }

    /// Sleeps to `at` with the timer alone; for measuring it.
    pub(crate) fn sleep_bare(&self, at: Duration) {
        let wake = self.absolute(at);
        while self.now() < at {
            let _ = clock_nanosleep_absolute(ClockId::Monotonic, &wake);
        }
    }
}

fn monotonic() -> Duration {
    let now = clock_gettime(ClockId::Monotonic);
    Duration::new(
        u64::try_from(now.tv_sec).unwrap_or(0),
        u32::try_from(now.tv_nsec).unwrap_or(0),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sleep_never_ends_before_its_deadline_and_a_past_one_is_no_sleep() {
        let clock = Clock::start();
        for n in 1..=20 {
            let at = Duration::from_micros(500 * n);
            clock.sleep_until(at);
            assert!(clock.now() >= at, "woke at {:?} for {at:?}", clock.now());
        }
        let before = clock.now();
        clock.sleep_until(Duration::ZERO);
        assert!(clock.now() - before < Duration::from_millis(100));
    }
}
