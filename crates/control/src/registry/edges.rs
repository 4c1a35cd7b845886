//! Traffic by edge: the sum of what sidecars report. Pure.

use std::collections::BTreeMap;

use weft_wire::EdgeReport;

use crate::admin::types::Edge;

/// Most edges kept. Beyond, new ones are counted as dropped: a mesh of 5,000 services with 4 callees each
/// has 40,000, both sides counted.
const MAX_EDGES: usize = 65_536;
/// Most latency buckets of one edge: sidecars use the same fixed bounds, far fewer.
const MAX_BUCKETS: usize = 4096;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    source: String,
    destination: String,
    protocol: String,
    reporter: String,
}

#[derive(Debug, Default)]
struct Totals {
    requests: u64,
    failures: u64,
    /// Upper bound of a bucket, microseconds, to its count.
    latency_us: BTreeMap<u64, u64>,
}

/// Totals of every edge since the start.
#[derive(Debug, Default)]
pub(crate) struct EdgeTable {
    edges: BTreeMap<Key, Totals>,
    dropped: u64,
}

impl EdgeTable {
    /// Adds what a sidecar of `service` saw. It speaks only for its own side of an edge.
    pub(crate) fn add(&mut self, service: &str, reports: Vec<EdgeReport>) {
        for report in reports {
            let own = match report.reporter.as_str() {
                "source" => &report.source,
                "destination" => &report.destination,
                _ => continue,
            };
            if own != service {
                tracing::debug!(service, edge = ?(report.source, report.destination), "not its own edge");
                continue;
            }
            self.add_one(report);
        }
    }

    fn add_one(&mut self, report: EdgeReport) {
        let key = Key {
            source: report.source,
            destination: report.destination,
            protocol: report.protocol,
            reporter: report.reporter,
        };
        if !self.edges.contains_key(&key) && self.edges.len() >= MAX_EDGES {
            self.dropped += 1;
            return;
        }
        let totals = self.edges.entry(key).or_default();
        totals.requests = totals.requests.saturating_add(report.requests);
        totals.failures = totals.failures.saturating_add(report.failures);
        for (bound, count) in report.latency_us {
            let bound = totals.bucket(bound);
            let total = totals.latency_us.entry(bound).or_default();
            *total = total.saturating_add(count);
        }
    }

    /// All edges with their percentiles.
    pub(crate) fn list(&self) -> Vec<Edge> {
        self.edges
            .iter()
            .map(|(key, totals)| Edge {
                reporter: key.reporter.clone(),
                source: key.source.clone(),
                destination: key.destination.clone(),
                protocol: key.protocol.clone(),
                requests: totals.requests,
                failures: totals.failures,
                success_rate: success_rate(totals.requests, totals.failures),
                p50_us: percentile(&totals.latency_us, 50),
                p90_us: percentile(&totals.latency_us, 90),
                p99_us: percentile(&totals.latency_us, 99),
                latency_us: totals.latency_us.iter().map(|(b, n)| (*b, *n)).collect(),
            })
            .collect()
    }
}

impl Totals {
    /// The bucket to count under: its own, or when there are too many, the next higher that exists.
    fn bucket(&self, bound: u64) -> u64 {
        if self.latency_us.len() < MAX_BUCKETS || self.latency_us.contains_key(&bound) {
            return bound;
        }
        let next = self.latency_us.range(bound..).next();
        next.or_else(|| self.latency_us.last_key_value())
            .map_or(bound, |(bound, _)| *bound)
    }
}

/// Share of requests that did not fail; 1 if there were none.
pub(crate) fn success_rate(requests: u64, failures: u64) -> f64 {
    if requests == 0 {
        return 1.0;
    }
    requests.saturating_sub(failures) as f64 / requests as f64
}

/// Upper bound of the bucket in which the percentile lies (nearest rank); `None` without samples.
pub(crate) fn percentile(buckets: &BTreeMap<u64, u64>, percent: u64) -> Option<u64> {
    let total: u128 = buckets.values().map(|count| u128::from(*count)).sum();
    let rank = (total * u128::from(percent)).div_ceil(100).max(1);
    let mut seen = 0_u128;
    for (bound, count) in buckets {
        seen += u128::from(*count);
        if *count > 0 && seen >= rank {
            return Some(*bound);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(reporter: &str, requests: u64, latency_us: &[(u64, u64)]) -> EdgeReport {
        EdgeReport {
            reporter: reporter.into(),
            source: "orders.default".into(),
            destination: "invoices.default".into(),
            protocol: "http".into(),
            requests,
            failures: 1,
            latency_us: latency_us.to_vec(),
        }
    }

    #[test]
    fn reports_of_all_instances_add_up_by_side() {
        let mut table = EdgeTable::default();
        table.add(
            "orders.default",
            vec![report("source", 10, &[(100, 9), (200, 1)])],
        );
        table.add(
            "orders.default",
            vec![report("source", 90, &[(100, 40), (400, 50)])],
        );
        table.add(
            "invoices.default",
            vec![report("destination", 5, &[(50, 5)])],
        );
        let edges = table.list();
        assert_eq!(edges.len(), 2);
        let source = edges.iter().find(|edge| edge.reporter == "source").unwrap();
        assert_eq!((source.requests, source.failures), (100, 2));
        assert!((source.success_rate - 0.98).abs() < 1e-9);
        assert_eq!(
            (source.p50_us, source.p90_us, source.p99_us),
            (Some(200), Some(400), Some(400))
        );
    }

    #[test]
    fn a_sidecar_speaks_only_for_its_own_side() {
        let mut table = EdgeTable::default();
        table.add("other.default", vec![report("source", 1, &[])]);
        table.add("orders.default", vec![report("destination", 1, &[])]);
        table.add("orders.default", vec![report("elsewhere", 1, &[])]);
        assert!(table.list().is_empty());
    }

    #[test]
    fn what_was_added_since_has_percentiles_of_its_own() {
        let mut table = EdgeTable::default();
        table.add("orders.default", vec![report("source", 50, &[(100, 50)])]);
        let before = table.list().remove(0);
        table.add("orders.default", vec![report("source", 10, &[(900, 10)])]);
        let added = table.list().remove(0).since(Some(&before));
        assert_eq!((added.requests, added.failures), (10, 1));
        assert_eq!((added.p50_us, added.p99_us), (Some(900), Some(900)));
        assert_eq!(before.since(None), before);
    }

    #[test]
    fn percentiles_are_the_bucket_of_the_nearest_rank() {
        let buckets = BTreeMap::from([(1, 50), (2, 40), (3, 9), (4, 1), (5, 0)]);
        for (percent, bound) in [
            (1, 1),
            (50, 1),
            (51, 2),
            (90, 2),
            (91, 3),
            (99, 3),
            (100, 4),
        ] {
            assert_eq!(percentile(&buckets, percent), Some(bound), "p{percent}");
        }
        assert_eq!(percentile(&BTreeMap::new(), 50), None);
        assert_eq!(percentile(&BTreeMap::from([(7, 1)]), 50), Some(7));
    }

    #[test]
    fn buckets_are_bounded_and_nothing_is_lost() {
        let mut totals = Totals::default();
        for bound in 0..MAX_BUCKETS as u64 {
            totals.latency_us.insert(bound * 2, 1);
        }
        assert_eq!(totals.bucket(2), 2);
        assert_eq!(totals.bucket(3), 4, "counted as slower, never as faster");
        assert_eq!(totals.bucket(1_000_000), (MAX_BUCKETS as u64 - 1) * 2);
    }
}
