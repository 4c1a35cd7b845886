//! Calls between services.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::registry::{percentile, success_rate};

/// One edge of `GET /v1/edges`: totals since the control node started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// `source` or `destination`: which side saw it.
    pub reporter: String,
    /// Calling service, `name.namespace`.
    pub source: String,
    /// Called service, `name.namespace`.
    pub destination: String,
    /// `http` or `tcp`.
    pub protocol: String,
    /// Requests or connections that ended.
    pub requests: u64,
    /// Of those, failed.
    pub failures: u64,
    /// Share that did not fail, 0 to 1; 1 if there were none.
    pub success_rate: f64,
    /// Median latency, microseconds: upper bound of its bucket.
    pub p50_us: Option<u64>,
    /// 90th percentile.
    pub p90_us: Option<u64>,
    /// 99th percentile.
    pub p99_us: Option<u64>,
    /// The samples behind them: upper bound of a bucket in microseconds, and its count.
    #[serde(default)]
    pub latency_us: Vec<(u64, u64)>,
}

impl Edge {
    /// What was added since an earlier look at the same edge.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self.clone();
        };
        let old: BTreeMap<u64, u64> = before.latency_us.iter().copied().collect();
        let buckets: BTreeMap<u64, u64> = self
            .latency_us
            .iter()
            .map(|(bound, count)| {
                let was = old.get(bound).copied().unwrap_or_default();
                (*bound, count.saturating_sub(was))
            })
            .collect();
        let failures = self.failures.saturating_sub(before.failures);
        let requests = self.requests.saturating_sub(before.requests);
        Self {
            requests,
            failures,
            success_rate: success_rate(requests, failures),
            p50_us: percentile(&buckets, 50),
            p90_us: percentile(&buckets, 90),
            p99_us: percentile(&buckets, 99),
            latency_us: buckets.into_iter().collect(),
            ..self.clone()
        }
    }
}

/// Reply of `GET /v1/edges`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeList {
    /// By source, destination, protocol and reporter.
    pub edges: Vec<Edge>,
}
