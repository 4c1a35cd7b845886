//! Waits between attempts: exponential with full jitter, so that a thousand sidecars that lost the same
//! control node do not come back in step.

use std::time::Duration;

/// Waits drawn from 0 up to a bound that doubles with each failure.
#[derive(Debug, Clone)]
pub(crate) struct Backoff {
    base: Duration,
    cap: Duration,
    failures: u32,
}

impl Backoff {
    pub(crate) fn new(base: Duration, cap: Duration) -> Self {
        Self {
            base,
            cap,
            failures: 0,
        }
    }

    /// The wait after one more failure; `draw` is 64 random bits.
    pub(crate) fn next(&mut self, draw: u64) -> Duration {
        let doubled = self.base.saturating_mul(1u32 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        fraction(doubled.min(self.cap), draw)
    }

    /// Forgets the failures.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The share `draw / 2^64` of a duration.
pub(crate) fn fraction(whole: Duration, draw: u64) -> Duration {
    let nanos = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let share = (u128::from(nanos) * u128::from(draw)) >> 64;
    Duration::from_nanos(u64::try_from(share).expect("a share is not larger than the whole"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_the_cap_and_the_draw_chooses_below_it() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(2000));
        for bound in [100, 200, 400, 800, 1600, 2000, 2000] {
            let wait = backoff.next(u64::MAX);
            assert!(
                wait <= ms(bound) && wait + ms(1) > ms(bound),
                "{wait:?} {bound}"
            );
        }
        assert_eq!(backoff.next(0), Duration::ZERO);
        assert_eq!(backoff.next(1 << 63), ms(1000));
        backoff.reset();
        assert!(backoff.next(u64::MAX) <= ms(100));
    }
}
