//! What a run of the client found.

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

use crate::usage::Usage;

/// Longest latency that is told from a longer one.
const LONGEST_US: u64 = 120_000_000;

/// A measured window.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Length of the window.
    pub(crate) seconds: f64,
    /// Replies that were whole in it: those that the latency is of.
    pub(crate) requests: u64,
    /// Bytes of bodies that came in it, also of replies that were not whole at its end.
    pub(crate) bytes: u64,
    /// Bytes of one reply's body.
    pub(crate) size: u64,
    /// Requests that failed, with the first reason.
    pub(crate) errors: u64,
    /// The first reason.
    pub(crate) first_error: Option<String>,
    /// Due and not answered when the run ended (open loop).
    pub(crate) unanswered: u64,
    /// Latency; nothing in bulk.
    pub(crate) latency: Option<Latency>,
    /// How late the client itself was (open loop): the bare timer of the same minutes.
    pub(crate) lateness: Option<Latency>,
    /// What the proxies used in the window.
    pub(crate) proxies: Usage,
}

/// Percentiles, µs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p90: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Outcome {
    /// Replies with the parts of those that were under way: with few large ones, whole replies alone would
    /// make the proxies' work for the others look like waste.
    fn replies(&self) -> f64 {
        match self.size {
            0 => self.requests as f64,
            size => self.bytes as f64 / size as f64,
        }
    }

    /// Replies a second.
    pub(crate) fn rate(&self) -> f64 {
        self.replies() / self.seconds
    }

    /// CPU time of the proxies per reply, µs.
    pub(crate) fn cpu_per_request(&self) -> Option<f64> {
        (self.replies() > 0.0).then(|| self.proxies.cpu_us as f64 / self.replies())
    }

    /// Gb/s of bodies.
    pub(crate) fn gigabits(&self) -> f64 {
        self.bytes as f64 * 8.0 / 1e9 / self.seconds
    }

    /// CPU seconds of the proxies per GB.
    pub(crate) fn cpu_per_gigabyte(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.proxies.cpu_us as f64 / 1e6 / (self.bytes as f64 / 1e9))
    }

    /// A reply that did not come.
    pub(crate) fn failed(&mut self, error: &crate::error::Error) {
        self.errors += 1;
        self.first_error.get_or_insert_with(|| error.to_string());
    }
}

/// Collects latencies with three digits.
#[derive(Debug)]
pub(crate) struct Recorder(Histogram<u64>);

impl Recorder {
    pub(crate) fn new() -> Self {
        // Bounds that hdrhistogram takes; nanoseconds would only add noise to a socket's microseconds.
        let bounded = Histogram::new_with_bounds(1, LONGEST_US * 10, 3);
        Self(bounded.unwrap_or_else(|_| unreachable!("bounds and digits are constants")))
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        // In tenths of a microsecond.
        let tenths = u64::try_from(latency.as_nanos() / 100).unwrap_or(u64::MAX);
        self.0.saturating_record(tenths.max(1));
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0 += &other.0;
    }

    pub(crate) fn len(&self) -> u64 {
        self.0.len()
    }

    pub(crate) fn latency(&self) -> Option<Latency> {
        let at = |quantile| self.0.value_at_quantile(quantile) as f64 / 10.0;
        (!self.0.is_empty()).then(|| Latency {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: self.0.max() as f64 / 10.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_come_back_in_microseconds() {
        let mut recorder = Recorder::new();
        for us in 1..=1000 {
            recorder.record(Duration::from_micros(us));
        }
        let latency = recorder.latency().unwrap();
        assert!((latency.p50 - 500.0).abs() < 2.0, "{latency:?}");
        assert!((latency.p99 - 990.0).abs() < 2.0, "{latency:?}");
        assert!((latency.max - 1000.0).abs() < 2.0, "{latency:?}");
    }

    #[test]
    fn parts_of_replies_count() {
        let outcome = Outcome {
            seconds: 1.0,
            requests: 1,
            bytes: 2_500,
            size: 1_000,
            proxies: Usage {
                cpu_us: 500,
                ..Usage::default()
            },
            ..Outcome::default()
        };
        assert_eq!(outcome.rate(), 2.5);
        assert_eq!(outcome.cpu_per_request(), Some(200.0));
    }

    #[test]
    fn nothing_measured_has_no_percentiles_and_no_cost() {
        assert_eq!(Recorder::new().latency(), None);
        assert_eq!(Outcome::default().cpu_per_request(), None);
        assert_eq!(Outcome::default().cpu_per_gigabyte(), None);
    }
}
