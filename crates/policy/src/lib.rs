//! The decisions of a sidecar, as plain functions over plain data.
//!
//! ```text
//! resources ──compile──> Config ─┐
//!                                ├─assemble──> Snapshot ──> route, authorize
//!            live endpoints ─────┘             LoadView ──> balance::pick
//!                                               Failure ──> retry::decide
//! ```
//!
//! There is no task, no socket, no clock and no random source in here: time and draws are arguments. `weft-proxy`
//! asks; the answers name the rule that they follow, so that every log line and every error reply can, too.
//!
//! A request is decided on in its normal form ([`RequestHead`], [`normalize_path`]), and forwarded in it.

mod authorize;
pub mod balance;
mod compile;
mod headers;
mod matcher;
mod path;
mod request;
pub mod retry;
mod route;
mod snapshot;

#[cfg(test)]
mod tests;

pub use authorize::{DEFAULT_DENY, Verdict, authorize};
pub use compile::{CompileError, Config};
pub use headers::HeaderEdits;
pub use path::{PathError, normalize_path};
pub use request::RequestHead;
pub use retry::RetryPolicy;
pub use route::{Backend, DEFAULT_RULE, RouteDecision, RouteError, choose_backend, route};
pub use snapshot::{Endpoint, ListenerSpec, PortProtocol, Service, Snapshot};
