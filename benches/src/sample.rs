//! One measurement, and what is made of several.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::workload::Workload;

/// What one run of the load saw.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Load {
    /// Requests that ended well in the measured time.
    pub(crate) requests: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// Requests of the schedule that had no answer when the load gave up waiting.
    pub(crate) unfinished: u64,
    /// Seconds measured.
    pub(crate) seconds: f64,
    /// Bytes of bodies that arrived in the measured time.
    pub(crate) bytes: u64,
    /// Latency in µs by percentile: `p50` and so on, with `max`.
    pub(crate) latency_us: BTreeMap<String, f64>,
    /// CPU seconds by the name of a process, in the measured time.
    pub(crate) cpu_s: BTreeMap<String, f64>,
    /// Resident KiB by the name of a process, at the end.
    pub(crate) rss_kib: BTreeMap<String, u64>,
    /// The first failure, in words.
    pub(crate) first_failure: Option<String>,
}

/// One run of one subject.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Sample {
    /// What was measured.
    pub(crate) subject: String,
    /// What else was set: loss, congestion control. Empty on loopback.
    #[serde(default)]
    pub(crate) setting: String,
    /// What was asked of it.
    pub(crate) workload: Workload,
    /// Repetition; ratios are taken within one.
    pub(crate) repetition: u32,
    /// Whether the link released packets late: not to be relied upon.
    #[serde(default)]
    pub(crate) late: bool,
    /// What came of it.
    pub(crate) load: Load,
}

impl Sample {
    /// Requests a second.
    pub(crate) fn rate(&self) -> f64 {
        self.load.requests as f64 / self.load.seconds
    }

    /// CPU µs of all proxies for each request, if anything was answered and there are proxies.
    pub(crate) fn cpu_us(&self) -> Option<f64> {
        let sum: f64 = self.load.cpu_s.values().sum();
        (self.load.requests > 0 && !self.load.cpu_s.is_empty())
            .then(|| sum * 1e6 / self.load.requests as f64)
    }

    /// CPU seconds for each GB of bodies.
    pub(crate) fn cpu_per_gb(&self) -> Option<f64> {
        let sum: f64 = self.load.cpu_s.values().sum();
        (self.load.bytes > 0 && !self.load.cpu_s.is_empty())
            .then(|| sum * 1e9 / self.load.bytes as f64)
    }

    /// Body bits a second, in Mb/s.
    pub(crate) fn mbit(&self) -> f64 {
        self.load.bytes as f64 * 8e-6 / self.load.seconds
    }

    /// A percentile in µs.
    pub(crate) fn latency(&self, name: &str) -> Option<f64> {
        self.load.latency_us.get(name).copied()
    }

    /// Resident MiB of the larger of the proxies.
    pub(crate) fn rss_mib(&self) -> Option<f64> {
        let most = self.load.rss_kib.values().max()?;
        Some(*most as f64 / 1024.0)
    }
}

/// Median and quartiles.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// A quarter is below.
    pub(crate) low: f64,
    /// The middle.
    pub(crate) median: f64,
    /// A quarter is above.
    pub(crate) high: f64,
}

impl Spread {
    /// Of some values; nothing of none.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|v| v.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = share * (values.len() as f64 - 1.0);
            let (below, rest) = (place.floor() as usize, place.fract());
            let above = (below + 1).min(values.len() - 1);
            values[below] * (1.0 - rest) + values[above] * rest
        };
        (!values.is_empty()).then(|| Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_neighbours() {
        let spread = Spread::of([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            spread,
            Spread {
                low: 1.75,
                median: 2.5,
                high: 3.25
            }
        );
        assert_eq!(Spread::of([7.0]).unwrap().median, 7.0);
        assert!(Spread::of([f64::NAN]).is_none());
    }
}
