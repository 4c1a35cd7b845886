//! One edge: the counters, and the latency distribution since the last report.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use hdrhistogram::Histogram as Latencies;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::histogram::Histogram;

use crate::labels::{CodeLabels, EdgeKey, EdgeLabels};
use crate::metrics::Families;

/// Response codes told apart on one edge; further ones are counted by class (`4xx`).
const MAX_CODES: usize = 24;
/// Longest latency told apart, in microseconds: one hour.
const MAX_LATENCY_US: u64 = 3_600_000_000;

/// One finished HTTP exchange.
#[derive(Debug, Clone, Copy, Default)]
pub struct HttpExchange {
    /// Status that the caller saw; 0 if it left before it saw one.
    pub code: u16,
    /// From the request's head to the response's last byte.
    pub duration: Duration,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// Ended by a reset, or refused by weft, such as with 403 by policy. A status of 500 and above counts as a failure
    /// without it.
    pub failed: bool,
}

/// One finished TCP connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpConnection {
    /// From accept to close.
    pub duration: Duration,
    /// Bytes from the caller to the called.
    pub sent_bytes: u64,
    /// Bytes from the called to the caller.
    pub received_bytes: u64,
    /// Refused, or ended by a reset.
    pub failed: bool,
}

/// What happened on an edge since the last [`crate::Telemetry::take_edges`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgeDelta {
    /// `source` or `destination`.
    pub reporter: &'static str,
    /// Calling service, `name.namespace`.
    pub source: String,
    /// Called service, `name.namespace`.
    pub destination: String,
    /// `http` or `tcp`.
    pub protocol: &'static str,
    /// Requests or TCP connections that ended.
    pub requests: u64,
    /// Of those, the failed ones.
    pub failures: u64,
    /// (highest latency of the bucket in microseconds, count), ascending, two significant digits.
    pub latency_us: Vec<(u64, u64)>,
}

/// A handle to record on one edge. Cheap to clone; keep it rather than look it up for each request.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

struct Inner {
    key: Arc<EdgeKey>,
    families: Arc<Families>,
    codes: RwLock<Vec<(u16, Counter)>>,
    duration: Histogram,
    request_bytes: Counter,
    response_bytes: Counter,
    retries: Counter,
    opened: Counter,
    closed: Counter,
    window: Mutex<Window>,
}

struct Window {
    requests: u64,
    failures: u64,
    latencies: Latencies<u32>,
}

impl Edge {
    pub(crate) fn new(key: Arc<EdgeKey>, families: &Arc<Families>) -> Self {
        let labels = EdgeLabels(Arc::clone(&key));
        let http = key.protocol == crate::Protocol::Http;
        // A series is made only for what can be recorded on it: an idle TCP edge has no HTTP series.
        let (duration, request_bytes, response_bytes) = if http {
            (
                &families.duration,
                &families.request_bytes,
                &families.response_bytes,
            )
        } else {
            (
                &families.tcp_duration,
                &families.tcp_sent,
                &families.tcp_received,
            )
        };
        let optional = |family: &crate::metrics::EdgeCounters, wanted: bool| {
            if wanted {
                family.get_or_create_owned(&labels)
            } else {
                Counter::default()
            }
        };
        Self(Arc::new(Inner {
            duration: duration.get_or_create_owned(&labels),
            request_bytes: request_bytes.get_or_create_owned(&labels),
            response_bytes: response_bytes.get_or_create_owned(&labels),
            retries: optional(&families.retries, http),
            opened: optional(&families.tcp_opened, !http),
            closed: optional(&families.tcp_closed, !http),
            codes: RwLock::default(),
            window: Mutex::new(Window {
                requests: 0,
                failures: 0,
                latencies: Latencies::new(2)
                    .expect("two significant digits are in the range 0..=5"),
            }),
            families: Arc::clone(families),
            key,
        }))
    }

    /// Records an HTTP exchange that ended.
    pub fn http(&self, exchange: HttpExchange) {
        let inner = &*self.0;
        self.code(exchange.code).inc();
        inner.duration.observe(exchange.duration.as_secs_f64());
        inner.request_bytes.inc_by(exchange.request_bytes);
        inner.response_bytes.inc_by(exchange.response_bytes);
        self.window(exchange.duration, exchange.failed || exchange.code >= 500);
    }

    /// Records that a request was tried on one more endpoint.
    pub fn retried(&self) {
        self.0.retries.inc();
    }

    /// Records that a TCP connection began.
    pub fn tcp_opened(&self) {
        self.0.opened.inc();
    }

    /// Records that a TCP connection ended.
    pub fn tcp_closed(&self, connection: TcpConnection) {
        let inner = &*self.0;
        inner.closed.inc();
        inner.duration.observe(connection.duration.as_secs_f64());
        inner.request_bytes.inc_by(connection.sent_bytes);
        inner.response_bytes.inc_by(connection.received_bytes);
        self.window(connection.duration, connection.failed);
    }

    fn window(&self, duration: Duration, failed: bool) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let mut window = self.0.window.lock().unwrap_or_else(PoisonError::into_inner);
        window.requests += 1;
        window.failures += u64::from(failed);
        // `record` grows the histogram; `saturating_record` would fold what is above its present end.
        window
            .latencies
            .record(micros.clamp(1, MAX_LATENCY_US))
            .expect("the histogram grows to any value below the clamp");
    }

    /// The counter of a code, resolved once.
    fn code(&self, code: u16) -> Counter {
        let codes = &self.0.codes;
        {
            let known = codes.read().unwrap_or_else(PoisonError::into_inner);
            if let Some((_, counter)) = known.iter().find(|(known, _)| *known == code) {
                return counter.clone();
            }
        }
        let mut known = codes.write().unwrap_or_else(PoisonError::into_inner);
        let full = known.len() >= MAX_CODES;
        let label = if full {
            format!("{}xx", code / 100)
        } else {
            code.to_string()
        };
        let counter = self.0.families.requests.get_or_create_owned(&CodeLabels {
            edge: EdgeLabels(Arc::clone(&self.0.key)),
            code: label.into(),
        });
        if !full {
            known.push((code, counter.clone()));
        }
        counter
    }

    /// What happened since the last take, or `None` if nothing did.
    pub(crate) fn take(&self) -> Option<EdgeDelta> {
        let (requests, failures, latency_us) = {
            let mut window = self.0.window.lock().unwrap_or_else(PoisonError::into_inner);
            if window.requests == 0 {
                return None;
            }
            let latencies = &window.latencies;
            let buckets = latencies
                .iter_recorded()
                .map(|step| {
                    (
                        latencies.highest_equivalent(step.value_iterated_to()),
                        step.count_since_last_iteration(),
                    )
                })
                .collect();
            let counts = (window.requests, window.failures);
            (window.requests, window.failures) = (0, 0);
            window.latencies.reset();
            (counts.0, counts.1, buckets)
        };
        let key = &self.0.key;
        Some(EdgeDelta {
            reporter: key.reporter.as_str(),
            source: key.source.display_name(),
            destination: key.destination.display_name(),
            protocol: key.protocol.as_str(),
            requests,
            failures,
            latency_us,
        })
    }
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Edge").field(&self.0.key).finish()
    }
}
