//! How late things happened.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// A histogram of delays past a deadline.
#[derive(Debug, Clone)]
pub struct Lateness {
    nanos: Histogram<u64>,
}

/// Later than this is late enough to show in a measurement over a link of milliseconds.
const LATE: Duration = Duration::from_millis(1);
/// Longest that is told apart.
const LONGEST: Duration = Duration::from_secs(60);

impl Default for Lateness {
    fn default() -> Self {
        Self::new()
    }
}

impl Lateness {
    /// Nothing recorded.
    #[must_use]
    pub fn new() -> Self {
        let longest = u64::try_from(LONGEST.as_nanos()).unwrap_or(u64::MAX);
        let nanos = Histogram::new_with_max(longest, 3).expect("3 digits up to a minute");
        Self { nanos }
    }

    /// Records one delay.
    pub fn record(&mut self, late: Duration) {
        self.nanos
            .saturating_record(u64::try_from(late.as_nanos()).unwrap_or(u64::MAX));
    }

    /// What was recorded, in figures.
    #[must_use]
    pub fn report(&self) -> LatenessReport {
        let millis = |nanos: u64| nanos as f64 / 1e6;
        let at = |quantile| millis(self.nanos.value_at_quantile(quantile));
        let count = self.nanos.len();
        let late = u64::try_from(LATE.as_nanos()).unwrap_or(u64::MAX);
        let share = if count == 0 {
            0.0
        } else {
            1.0 - self.nanos.quantile_below(late)
        };
        LatenessReport {
            count,
            p50_ms: at(0.5),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: millis(self.nanos.max()),
            over_1ms: share,
        }
    }
}

/// Percentiles of delays past a deadline, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LatenessReport {
    /// How many were recorded.
    pub count: u64,
    /// Half are below.
    pub p50_ms: f64,
    /// 99 in 100 are below.
    pub p99_ms: f64,
    /// 999 in 1,000 are below.
    pub p999_ms: f64,
    /// The largest.
    pub max_ms: f64,
    /// The share, 0 to 1, that was more than a millisecond late.
    pub over_1ms: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_and_the_share_of_late_ones_are_what_was_recorded() {
        let mut lateness = Lateness::new();
        for n in 1..=100 {
            lateness.record(Duration::from_micros(if n <= 90 { 100 } else { 5_000 }));
        }
        let report = lateness.report();
        assert_eq!(report.count, 100);
        assert!((report.p50_ms - 0.1).abs() < 0.001, "{report:?}");
        assert!((report.p99_ms - 5.0).abs() < 0.01, "{report:?}");
        assert!((report.over_1ms - 0.1).abs() < 1e-9, "{report:?}");
        assert_eq!(Lateness::new().report().over_1ms, 0.0);
    }
}
