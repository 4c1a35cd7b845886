//! The registry of a process, and the edges it knows.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::edge::{Edge, EdgeDelta};
use crate::labels::{
    AuthorityLabels, CodeLabels, ConnectionLabels, EdgeLabels, EventLabels, HandshakeLabels,
    RefusalLabels,
};
use crate::paths::Paths;
use crate::{Direction, EdgeKey, Party, PathSample, Side};

/// Edges told apart by one process; the rest is recorded on an edge named `other`.
pub const MAX_EDGES: usize = 2_048;

/// Value of `content-type` for what [`Telemetry::encode`] gives.
pub const METRICS_CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: OpenTelemetry's advice for request durations, with finer steps below 5 ms,
/// where calls inside a data centre lie.
const SECONDS: [f64; 18] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0, 30.0,
];

pub(crate) type EdgeCounters = Family<EdgeLabels, Counter>;
pub(crate) type EdgeHistograms = Family<EdgeLabels, Histogram, fn() -> Histogram>;

/// Every metric with labels, shared by the edges.
pub(crate) struct Families {
    pub(crate) requests: Family<CodeLabels, Counter>,
    pub(crate) duration: EdgeHistograms,
    pub(crate) request_bytes: EdgeCounters,
    pub(crate) response_bytes: EdgeCounters,
    pub(crate) retries: EdgeCounters,
    pub(crate) tcp_opened: EdgeCounters,
    pub(crate) tcp_closed: EdgeCounters,
    pub(crate) tcp_duration: EdgeHistograms,
    pub(crate) tcp_sent: EdgeCounters,
    pub(crate) tcp_received: EdgeCounters,
    refusals: Family<RefusalLabels, Counter>,
    connections: Family<ConnectionLabels, Gauge>,
    handshakes: Family<HandshakeLabels, Counter>,
    fallbacks: Family<EventLabels, Counter>,
    fallback_paths: Gauge,
    revision: Gauge,
    nacks: Counter,
    unsaved: Gauge,
    svid_left: Gauge,
    authority_left: Family<AuthorityLabels, Gauge>,
    svid_renewals: Counter,
    paths: Paths,
}

/// The telemetry of one process. Cheap to clone.
#[derive(Clone)]
pub struct Telemetry(Arc<Inner>);

struct Inner {
    registry: Registry,
    families: Arc<Families>,
    edges: RwLock<BTreeMap<Arc<EdgeKey>, Edge>>,
}

impl Telemetry {
    /// An empty registry; `version` is shown as `weft_build_info`.
    #[must_use]
    pub fn new(version: &str) -> Self {
        let mut registry = Registry::with_prefix("weft");
        registry.register(
            "build",
            "Version of the running program",
            Info::new(vec![("version".to_owned(), version.to_owned())]),
        );
        Self(Arc::new(Inner {
            families: Arc::new(Families::register(&mut registry)),
            registry,
            edges: RwLock::default(),
        }))
    }

    /// The handle of an edge, made on first use. Beyond [`MAX_EDGES`] it is the edge `other` of that
    /// side and protocol.
    #[must_use]
    pub fn edge(&self, key: &EdgeKey) -> Edge {
        let edges = &self.0.edges;
        if let Some(edge) = edges
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(key)
        {
            return edge.clone();
        }
        let mut edges = edges.write().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::new(if edges.len() < MAX_EDGES {
            key.clone()
        } else {
            EdgeKey {
                source: Party::other(),
                destination: Party::other(),
                ..key.clone()
            }
        });
        edges
            .entry(Arc::clone(&key))
            .or_insert_with(|| Edge::new(key, &self.0.families))
            .clone()
    }

    /// What happened on each edge since the last call. Edges without traffic are left out.
    #[must_use]
    pub fn take_edges(&self) -> Vec<EdgeDelta> {
        let edges: Vec<Edge> = {
            let edges = self.0.edges.read().unwrap_or_else(PoisonError::into_inner);
            edges.values().cloned().collect()
        };
        edges.iter().filter_map(Edge::take).collect()
    }

    /// Counts one refusal: which side made it and why, in one word of a fixed vocabulary.
    pub fn refused(&self, side: Side, reason: &'static str) {
        self.refusal_counter(side, reason).inc();
    }

    /// Brings the count of a refusal that another part counts (handshakes, dials) up to `total`.
    pub fn refusals_total(&self, side: Side, reason: &'static str, total: u64) {
        let counter = self.refusal_counter(side, reason);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    fn refusal_counter(&self, side: Side, reason: &'static str) -> Counter {
        let side = side.as_str();
        self.0
            .families
            .refusals
            .get_or_create_owned(&RefusalLabels { side, reason })
    }

    /// Sets the number of open mesh connections over `quic` (HTTP/3) or `tcp` (HTTP/2).
    pub fn set_connections(&self, direction: Direction, transport: &'static str, open: usize) {
        let labels = ConnectionLabels {
            direction: direction.as_str(),
            transport,
        };
        let connections = &self.0.families.connections;
        let gauge = connections.get_or_create_owned(&labels);
        gauge.set(clamp(open as u64));
    }

    /// Brings the count of handshakes of one kind (`full`, `resumed`) up to a total.
    pub fn handshakes_total(&self, direction: Direction, kind: &'static str, total: u64) {
        let direction = direction.as_str();
        let labels = HandshakeLabels { direction, kind };
        let counter = self.0.families.handshakes.get_or_create_owned(&labels);
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// Brings the counter of one kind of event around blocked UDP up to a total.
    pub fn fallbacks_total(&self, event: &'static str, total: u64) {
        let counter = self
            .0
            .families
            .fallbacks
            .get_or_create_owned(&EventLabels(event));
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// Sets the number of addresses that are reached over TCP because no UDP passes.
    pub fn set_fallback_paths(&self, paths: u64) {
        self.0.families.fallback_paths.set(clamp(paths));
    }

    /// Shows these paths, all that there are now.
    pub fn set_paths(&self, samples: &[PathSample<'_>]) {
        self.0.families.paths.follow(samples);
    }

    /// Sets the revision in force.
    pub fn set_revision(&self, revision: u64) {
        self.0.families.revision.set(clamp(revision));
    }

    /// Sets the remaining life of the served SVID (zero once it has expired).
    pub fn set_svid_left(&self, left: Duration) {
        self.0.families.svid_left.set(clamp(left.as_secs()));
    }

    /// Sets the remaining life of every authority, in place of all that were set before: role, name, life.
    pub fn set_authorities_left<'a>(
        &self,
        authorities: impl IntoIterator<Item = (&'a str, &'a str, Duration)>,
    ) {
        let family = &self.0.families.authority_left;
        family.clear();
        for (role, name, left) in authorities {
            let labels = AuthorityLabels {
                role: role.to_owned(),
                name: name.to_owned(),
            };
            family.get_or_create(&labels).set(clamp(left.as_secs()));
        }
    }

    /// Counts a revision whose config was not used.
    pub fn config_nacked(&self) {
        self.0.families.nacks.inc();
    }

    /// Sets whether what is in force could not be saved.
    pub fn set_config_unsaved(&self, unsaved: bool) {
        self.0.families.unsaved.set(i64::from(unsaved));
    }

    /// Counts a new SVID put to use.
    pub fn svid_renewed(&self) {
        self.0.families.svid_renewals.inc();
    }

    /// All metrics as OpenMetrics text ([`METRICS_CONTENT_TYPE`]), which Prometheus reads.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut out = String::with_capacity(8 * 1024);
        text::encode(&mut out, &self.0.registry).expect("writing to a String does not fail");
        out
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Telemetry").finish_non_exhaustive()
    }
}

impl Families {
    fn register(registry: &mut Registry) -> Self {
        fn seconds() -> Histogram {
            Histogram::new(SECONDS)
        }
        let families = Self {
            requests: Family::default(),
            duration: EdgeHistograms::new_with_constructor(seconds),
            request_bytes: Family::default(),
            response_bytes: Family::default(),
            retries: Family::default(),
            tcp_opened: Family::default(),
            tcp_closed: Family::default(),
            tcp_duration: EdgeHistograms::new_with_constructor(seconds),
            tcp_sent: Family::default(),
            tcp_received: Family::default(),
            refusals: Family::default(),
            connections: Family::default(),
            handshakes: Family::default(),
            fallbacks: Family::default(),
            fallback_paths: Gauge::default(),
            revision: Gauge::default(),
            nacks: Counter::default(),
            unsaved: Gauge::default(),
            svid_left: Gauge::default(),
            authority_left: Family::default(),
            svid_renewals: Counter::default(),
            paths: Paths::default(),
        };
        families.register_http(registry);
        families.register_tcp(registry);
        families.register_sidecar(registry);
        families.paths.register(registry);
        families
    }

    fn register_http(&self, registry: &mut Registry) {
        registry.register(
            "requests",
            "HTTP requests that ended, by edge and response code (0: the caller left)",
            self.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "From a request's head to its response's last byte, by edge",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register_with_unit(
            "request",
            "Bytes of request bodies, by edge",
            Unit::Bytes,
            self.request_bytes.clone(),
        );
        registry.register_with_unit(
            "response",
            "Bytes of response bodies, by edge",
            Unit::Bytes,
            self.response_bytes.clone(),
        );
        registry.register(
            "request_retries",
            "Further attempts of HTTP requests on other endpoints, by edge",
            self.retries.clone(),
        );
    }

    fn register_tcp(&self, registry: &mut Registry) {
        registry.register(
            "tcp_connections_opened",
            "TCP connections that began, by edge",
            self.tcp_opened.clone(),
        );
        registry.register(
            "tcp_connections_closed",
            "TCP connections that ended, by edge",
            self.tcp_closed.clone(),
        );
        registry.register_with_unit(
            "tcp_connection_duration",
            "Life of TCP connections, by edge",
            Unit::Seconds,
            self.tcp_duration.clone(),
        );
        registry.register_with_unit(
            "tcp_sent",
            "Bytes from caller to called on TCP connections that ended, by edge",
            Unit::Bytes,
            self.tcp_sent.clone(),
        );
        registry.register_with_unit(
            "tcp_received",
            "Bytes from called to caller on TCP connections that ended, by edge",
            Unit::Bytes,
            self.tcp_received.clone(),
        );
    }

    fn register_sidecar(&self, registry: &mut Registry) {
        registry.register(
            "refusals",
            "Peers, dials, requests and connections refused, by side and reason",
            self.refusals.clone(),
        );
        registry.register(
            "connections",
            "Open mesh connections, by who dialled and by transport (quic, or tcp where no UDP passes)",
            self.connections.clone(),
        );
        registry.register(
            "handshakes",
            "Handshakes of mesh connections, by who dialled and by kind (full, or resumed from an earlier one)",
            self.handshakes.clone(),
        );
        registry.register(
            "fallbacks",
            "Connections that went to TCP because no UDP passed (to_tcp), came back (to_quic), probes in vain (probe_failed)",
            self.fallbacks.clone(),
        );
        registry.register(
            "fallback_paths",
            "Addresses that are reached over TCP because no UDP passes",
            self.fallback_paths.clone(),
        );
        registry.register(
            "config_revision",
            "Revision of the config in force",
            self.revision.clone(),
        );
        registry.register(
            "config_nacks",
            "Revisions whose config could not be used",
            self.nacks.clone(),
        );
        registry.register(
            "config_unsaved",
            "1 while what is in force could not be saved: a restart would go back to what was saved before",
            self.unsaved.clone(),
        );
        registry.register_with_unit(
            "svid_remaining",
            "Remaining life of the served SVID",
            Unit::Seconds,
            self.svid_left.clone(),
        );
        registry.register_with_unit(
            "authority_remaining",
            "Remaining life of each root and issuing certificate",
            Unit::Seconds,
            self.authority_left.clone(),
        );
        registry.register(
            "svid_renewals",
            "New SVIDs put to use",
            self.svid_renewals.clone(),
        );
    }
}

pub(crate) fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
#[path = "metrics_tests.rs"]
mod tests;
