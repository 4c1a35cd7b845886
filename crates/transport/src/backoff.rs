//! The memory of failed dials: bounded, and pure (time and randomness are arguments).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::DialError;

#[derive(Debug)]
struct Failure {
    error: Arc<DialError>,
    until: Instant,
    failures: u32,
}

/// Failed dials by target, each with the time before which nobody tries again.
#[derive(Debug)]
pub(crate) struct Backoff<K> {
    failed: BTreeMap<K, Failure>,
    first: Duration,
    longest: Duration,
    capacity: usize,
}

impl<K: Ord + Clone> Backoff<K> {
    pub(crate) fn new((first, longest): (Duration, Duration), capacity: usize) -> Self {
        Self {
            failed: BTreeMap::new(),
            first,
            longest,
            capacity,
        }
    }

    /// The failure to answer with, if it is too early to dial again.
    pub(crate) fn check(&self, key: &K, now: Instant) -> Option<DialError> {
        let failure = self.failed.get(key).filter(|failure| now < failure.until)?;
        Some(DialError::Backoff {
            last: failure.error.clone(),
            again_in: failure.until.duration_since(now),
        })
    }

    /// Remembers a failure. Full jitter: the wait is a random part of what doubling gives, so that the
    /// callers of a target that comes back do not all arrive at once. `draw` is 64 random bits.
    pub(crate) fn failed(&mut self, key: K, error: Arc<DialError>, now: Instant, draw: u64) {
        // One that is long over counts as none.
        let old = self
            .failed
            .get(&key)
            .filter(|old| now < old.until + self.longest);
        let failures = old.map_or(0, |old| old.failures);
        let ceiling = self
            .first
            .saturating_mul(1 << failures.min(16))
            .min(self.longest);
        let wait = ceiling.mul_f64(draw as f64 / u64::MAX as f64);
        self.make_room(now);
        let failures = failures.saturating_add(1);
        self.failed.insert(
            key,
            Failure {
                error,
                until: now + wait,
                failures,
            },
        );
    }

    /// A dial succeeded. One that the peer rejects later is remembered on: its handshake always succeeds
    /// at first, and must not reset the wait each time.
    pub(crate) fn succeeded(&mut self, key: &K) {
        let rejected =
            |failure: &Failure| matches!(*failure.error, DialError::RejectedByPeer { .. });
        if !self.failed.get(key).is_some_and(rejected) {
            self.failed.remove(key);
        }
    }

    /// The identity or the bundles changed: any reason may be gone.
    pub(crate) fn forget_all(&mut self) {
        self.failed.clear();
    }

    fn make_room(&mut self, now: Instant) {
        if self.failed.len() < self.capacity {
            return;
        }
        // Those whose wait is long over first; if none is, the one that is over soonest.
        let longest = self.longest;
        self.failed
            .retain(|_, failure| now < failure.until + longest);
        if self.failed.len() >= self.capacity
            && let Some(key) = self
                .failed
                .iter()
                .min_by_key(|(_, failure)| failure.until)
                .map(|(key, _)| key.clone())
        {
            self.failed.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error() -> Arc<DialError> {
        Arc::new(DialError::Busy {
            addr: ([127, 0, 0, 1], 1).into(),
        })
    }

    fn backoff(capacity: usize) -> Backoff<u32> {
        Backoff::new(
            (Duration::from_millis(100), Duration::from_secs(5)),
            capacity,
        )
    }

    #[tokio::test(start_paused = true)]
    async fn the_wait_doubles_up_to_its_limit_and_the_reason_is_kept() {
        let (mut backoff, now) = (backoff(8), Instant::now());
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            backoff.failed(1, error(), now, u64::MAX);
            let Some(DialError::Backoff { again_in, last }) = backoff.check(&1, now) else {
                panic!("a failed target is in backoff");
            };
            assert_eq!(again_in, Duration::from_millis(expected));
            assert_eq!(last.reason(), "busy");
        }
        assert!(
            backoff.check(&1, now + Duration::from_secs(5)).is_none(),
            "the wait is over"
        );
        assert!(
            backoff.check(&2, now).is_none(),
            "targets do not share a wait"
        );
        backoff.failed(1, error(), now, u64::MAX / 2);
        let Some(DialError::Backoff { again_in, .. }) = backoff.check(&1, now) else {
            panic!("still in backoff");
        };
        assert_eq!(again_in.as_millis(), 2_500, "half a draw, half the wait");
        backoff.succeeded(&1);
        assert!(backoff.check(&1, now).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_rejects_after_the_handshake_is_not_dialled_ever_faster() {
        let (mut backoff, now) = (backoff(2), Instant::now());
        let addr = ([127, 0, 0, 1], 1).into();
        let rejected = DialError::RejectedByPeer {
            addr,
            reason: "expired",
            cause: String::new(),
        };
        let rejected = Arc::new(rejected);
        backoff.failed(1, rejected.clone(), now, u64::MAX);
        backoff.succeeded(&1);
        backoff.failed(1, rejected.clone(), now, u64::MAX);
        let wait = |error| match error {
            Some(DialError::Backoff { again_in, .. }) => again_in.as_millis(),
            other => panic!("expected a backoff, got {other:?}"),
        };
        assert_eq!(wait(backoff.check(&1, now)), 200);
        let later = now + Duration::from_secs(60);
        backoff.failed(1, rejected, later, u64::MAX);
        assert_eq!(
            wait(backoff.check(&1, later)),
            100,
            "a failure of long ago counts no more"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let (mut backoff, now) = (backoff(2), Instant::now());
        for key in 0..100 {
            backoff.failed(key, error(), now, u64::MAX);
        }
        assert_eq!(backoff.failed.len(), 2);
        assert!(backoff.check(&99, now).is_some(), "the newest is kept");
    }
}
