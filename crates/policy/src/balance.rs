//! Which endpoint gets a request: the better of two drawn at random ("power of two choices"), by an estimate of
//! its latency that jumps up at once and comes down slowly ("peak EWMA").

use std::time::Duration;

use crate::route::below;

/// How fast a peak is forgotten: after this time a third of it is left. An instance that was forty times slower
/// once, for a pause of its runtime or a stolen CPU, is drawn again after four times this: with the 10 s that
/// others use it would stand idle for most of a minute.
pub const DECAY: Duration = Duration::from_secs(5);
/// What is assumed of an endpoint that was never used.
pub const INITIAL_RTT: Duration = Duration::from_millis(30);
/// What a failure counts as. An endpoint that fails at once must not look like the fastest one.
pub const FAILURE_RTT: Duration = Duration::from_secs(5);
/// Wait after a first failed dial; doubled by each that follows.
pub const FIRST_BACKOFF: Duration = Duration::from_millis(500);
/// Longest wait after a failed dial.
pub const MAX_BACKOFF: Duration = Duration::from_secs(10);

/// An estimate of an endpoint's latency. `now` is the time since any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeakEwma {
    /// Seconds, at `updated`.
    estimate: f64,
    updated: Duration,
}

impl PeakEwma {
    /// Of an endpoint that was never used.
    #[must_use]
    pub fn new(now: Duration) -> Self {
        Self {
            estimate: INITIAL_RTT.as_secs_f64(),
            updated: now,
        }
    }

    /// Takes in how long a request took to its response head. A peak counts at once.
    pub fn observe(&mut self, rtt: Duration, now: Duration) {
        let rtt = rtt.as_secs_f64();
        self.estimate = if rtt > self.estimate {
            rtt
        } else {
            let weight = self.decay(now);
            self.estimate * weight + rtt * (1.0 - weight)
        };
        self.updated = self.updated.max(now);
    }

    /// Takes in a failure, also one that came at once ([`FAILURE_RTT`]).
    pub fn observe_failure(&mut self, now: Duration) {
        self.observe(FAILURE_RTT, now);
    }

    /// The cost of one more request: the estimate, nearer to zero the older it is, for each that is under way and
    /// the one to come. Seconds.
    #[must_use]
    pub fn load(&self, now: Duration, pending: u32) -> f64 {
        self.estimate * self.decay(now) * (f64::from(pending) + 1.0)
    }

    /// What is left of the estimate after the time since its last sample.
    fn decay(&self, now: Duration) -> f64 {
        let age = now.saturating_sub(self.updated).as_secs_f64();
        (-age / DECAY.as_secs_f64()).exp()
    }
}

/// Whether an endpoint can be reached, as far as dials have shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DialHealth {
    failures: u32,
    until: Option<Duration>,
}

impl DialHealth {
    /// A dial failed. `draw` is a uniform random number: half of the wait is left to it, so that not everyone
    /// comes back in the same moment.
    pub fn failed(&mut self, now: Duration, draw: u64) {
        let doubled = FIRST_BACKOFF.saturating_mul(1 << self.failures.min(16));
        let wait = doubled.min(MAX_BACKOFF);
        let half = wait / 2;
        let half_ns = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
        self.failures = self.failures.saturating_add(1);
        self.until = Some(now + half + Duration::from_nanos(below(draw, half_ns + 1)));
    }

    /// A dial, or a request, succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// How it looks now.
    #[must_use]
    pub fn readiness(&self, now: Duration) -> Readiness {
        match self.until {
            Some(until) if now < until => Readiness::LastResort,
            _ => Readiness::Ready,
        }
    }
}

/// Whether an endpoint is to be drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Only if no other is ready: it failed a moment ago, and a try is better than none.
    LastResort,
    /// No: this request has been there already.
    Excluded,
}

/// An endpoint as the balancer sees it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadView {
    /// From [`PeakEwma::load`].
    pub load: f64,
    /// Whether it is to be drawn.
    pub readiness: Readiness,
}

/// Picks the index of an endpoint: of two different ones drawn from those that are ready, the one with less load.
/// `draw` are two uniform random numbers. `None` if there are none, or all are excluded.
#[must_use]
pub fn pick(candidates: &[LoadView], draw: (u64, u64)) -> Option<usize> {
    let best = candidates
        .iter()
        .map(|candidate| candidate.readiness)
        .filter(|readiness| *readiness != Readiness::Excluded)
        .min()?;
    let eligible = || {
        candidates
            .iter()
            .enumerate()
            .filter(move |(_, candidate)| candidate.readiness == best)
    };
    let count = u64::try_from(eligible().count()).expect("usize has 64 bits or fewer");
    let nth = |n: u64| eligible().nth(usize::try_from(n).expect("n is below a usize"));
    let first = below(draw.0, count);
    let (index, one) = nth(first)?;
    if count == 1 {
        return Some(index);
    }
    // Of the others: those from `first` on move up by one.
    let second = below(draw.1, count - 1);
    let second = if second >= first { second + 1 } else { second };
    let (other_index, other) = nth(second)?;
    Some(if other.load < one.load {
        other_index
    } else {
        index
    })
}
