//! What a weft process says about itself: metrics, edges, the access log, and where logs go.
//!
//! [`Telemetry`] is one cheap handle per process. The unit of traffic is the [`Edge`]: one service
//! calling another over one protocol, seen from one side. An edge is resolved once ([`Telemetry::edge`])
//! and kept by whoever records on it, so that a request costs a few additions and no label hashing:
//!
//! ```
//! use std::time::Duration;
//! use weft_telemetry::{EdgeKey, HttpExchange, Party, Protocol, Reporter, Telemetry};
//!
//! let telemetry = Telemetry::new("0.1.0");
//! let edge = telemetry.edge(&EdgeKey {
//!     reporter: Reporter::Source,
//!     source: Party::service("default", "orders", "spiffe://weft.local/ns/default/sa/orders"),
//!     destination: Party::service("default", "invoices", "spiffe://weft.local/ns/default/sa/invoices"),
//!     protocol: Protocol::Http,
//! });
//! edge.http(HttpExchange { code: 200, duration: Duration::from_millis(3), ..HttpExchange::default() });
//! let report = telemetry.take_edges();
//! assert_eq!((report[0].source.as_str(), report[0].requests), ("orders.default", 1));
//! assert!(telemetry.encode().contains("weft_requests_total"));
//! ```
//!
//! Two things read what was recorded: a scraper, the Prometheus text of [`Telemetry::encode`]; and the
//! sidecar's report to its control node, the changes of [`Telemetry::take_edges`].
//!
//! Labels hold services, identities, protocols and codes: never a path, an address or an id. The number
//! of edges is bounded ([`MAX_EDGES`]); what comes after is recorded on one edge named `other`.

mod access;
mod edge;
mod labels;
mod logging;
mod metrics;
mod paths;
mod sink;

pub use access::{AccessEntry, access};
pub use edge::{Edge, EdgeDelta, HttpExchange, TcpConnection};
pub use labels::{Direction, EdgeKey, Party, Protocol, Reporter, Side};
pub use logging::{LogFormat, LoggingError, check_filter, flush_logging, init_logging};
pub use metrics::{MAX_EDGES, METRICS_CONTENT_TYPE, Telemetry};
pub use paths::{PathSample, PathTotals};
