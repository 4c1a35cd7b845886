//! The resources that an operator writes: types, validation, precise errors. No I/O.
//!
//! A text goes through three steps, and each error names file, line, column, field and reason:
//!
//! ```text
//! YAML --parse--> tree with places --serde--> typed resource --validate--> Resource
//! ```
//!
//! [`parse_yaml`] is for what people write, [`Resource::from_json`] for the store and the wire. Shapes,
//! defaults and limits are those of the Kubernetes Gateway API (as its mesh profile, GAMMA, uses it) where it
//! has the kind, and weft's own (`weft.dev/v1`) where it has none. Unknown fields are errors: a field that is
//! skipped is a rule that its author believes in and nobody follows.

mod attest;
mod authorization;
mod document;
mod duration;
mod error;
mod http_route;
mod http_route_check;
mod located;
mod name;
mod near;
mod node;
mod outbound_listener;
mod reference;
mod resource;
mod service_entry;
mod yaml;

#[cfg(test)]
mod tests;

pub use attest::{
    Attestors, ClusterAttestor, MachineAttestor, MachineNames, Unmapped, parse_attestors,
};
pub use authorization::{
    Action, AuthorizationPolicySpec, AuthorizationRule, From, Operation, Pattern, PatternError,
    Port, Source, To,
};
pub use duration::{DurationError, GatewayDuration};
pub use error::ResourceError;
pub use http_route::{
    FilterKind, Header, HeaderModifier, HttpMethod, HttpRouteFilter, HttpRouteMatch,
    HttpRouteRetry, HttpRouteRule, HttpRouteSpec, HttpRouteTimeouts, NamedMatch, PathMatch,
    PathMatchKind, ValueMatchKind,
};
pub use name::{
    DEFAULT_NAMESPACE, NameError, SYSTEM_NAMESPACE, ServiceName, check_label, check_resource_name,
};
pub use outbound_listener::{OutboundListenerSpec, TcpBackend, Workload};
pub use reference::{BackendRef, ParentRef, ServiceKind, TargetRef};
pub use resource::{
    AuthorizationPolicy, HttpRoute, KeyError, Kind, Metadata, Object, OutboundListener, Resource,
    ResourceKey, ServiceEntry,
};
pub use service_entry::{EntryEndpoint, EntryPort, EntryProtocol, ServiceEntrySpec};
pub use yaml::{MAX_DOCUMENTS, MAX_INPUT, parse_yaml};
