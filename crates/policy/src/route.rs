//! Where a request goes.

use std::sync::Arc;
use std::time::Duration;

use weft_resources::ServiceName;

use crate::compile::Action;
use crate::headers::HeaderEdits;
use crate::request::RequestHead;
use crate::retry::RetryPolicy;
use crate::snapshot::{PortProtocol, Snapshot};

/// The label of a decision that no route has a part in.
pub const DEFAULT_RULE: &str = "default";

/// What is to be done with a request.
#[derive(Debug, Clone)]
pub struct RouteDecision {
    /// The rule that decided, such as `HTTPRoute/default/invoices#0`, or [`DEFAULT_RULE`].
    pub rule: Arc<str>,
    /// Who may answer. At least one has a weight over zero.
    pub backends: Arc<[Backend]>,
    /// The whole request, with all retries. `None` is no limit, which is the default.
    pub timeout: Option<Duration>,
    /// One attempt, to the end of its response. `None` is no limit, which is the default.
    pub backend_timeout: Option<Duration>,
    /// Which failures to try again.
    pub retry: RetryPolicy,
    /// Changes to the request's headers.
    pub request_headers: Arc<HeaderEdits>,
    /// Changes to the response's headers.
    pub response_headers: Arc<HeaderEdits>,
    /// The port that the caller named.
    port: u16,
}

/// A service that may answer, with its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backend {
    /// The service.
    pub service: ServiceName,
    /// Its port. `None` is the one that the caller named.
    pub port: Option<u16>,
    /// Its share of the requests: weight by sum of weights.
    pub weight: u32,
}

/// Why a request goes nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    /// Nothing of this name is registered, or has a route.
    #[error("no service '{0}' is known in the mesh")]
    NoSuchService(ServiceName),
    /// The service has no such port.
    #[error("service '{service}' has no port {port}")]
    NoSuchPort {
        /// The service.
        service: ServiceName,
        /// The port.
        port: u16,
    },
    /// The port carries byte streams.
    #[error("port {port} of service '{service}' is TCP: no HTTP request can go there")]
    NotHttp {
        /// The service.
        service: ServiceName,
        /// The port.
        port: u16,
    },
    /// Routes exist and none matches: then nothing is forwarded (GAMMA).
    #[error("no rule of the routes of service '{0}' matches the request")]
    NoMatch(ServiceName),
    /// The rule names no backend, or only such of weight 0.
    #[error("rule '{0}' has no backend with a weight over zero")]
    NoBackends(Arc<str>),
    /// The backend drawn cannot be used. Its share of the requests gets this.
    #[error("rule '{rule}' sends to '{backend}', {reason}")]
    InvalidBackend {
        /// The rule.
        rule: Arc<str>,
        /// The backend, with its port.
        backend: String,
        /// Why it cannot be used.
        reason: &'static str,
    },
}

impl RouteError {
    /// Status of the reply (Gateway API, `HTTPRouteRule`).
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::NoSuchService(_)
            | Self::NoSuchPort { .. }
            | Self::NotHttp { .. }
            | Self::NoMatch(_) => 404,
            Self::NoBackends(_) | Self::InvalidBackend { .. } => 500,
        }
    }

    /// Error type for `proxy-status` (RFC 9209 §2.3).
    #[must_use]
    pub fn proxy_status(&self) -> &'static str {
        match self.status() {
            404 => "destination_not_found",
            _ => "proxy_configuration_error",
        }
    }
}

/// Finds where a request to `port` of `service` goes, for a caller in `caller_namespace`.
///
/// Routes of the caller's own namespace (consumer routes) replace those of the service's (producer routes). Where
/// there is any, only they forward; where there is none, the service itself is the backend.
///
/// # Errors
/// [`RouteError`], every one but [`RouteError::InvalidBackend`].
pub fn route(
    snapshot: &Snapshot,
    caller_namespace: &str,
    service: &ServiceName,
    port: u16,
    head: &RequestHead<'_>,
) -> Result<RouteDecision, RouteError> {
    match snapshot.port_protocol(service, port) {
        Some(PortProtocol::Http) => {}
        Some(PortProtocol::Tcp) => {
            let service = service.clone();
            return Err(RouteError::NotHttp { service, port });
        }
        None if snapshot.knows(service) => {
            let service = service.clone();
            return Err(RouteError::NoSuchPort { service, port });
        }
        None => return Err(RouteError::NoSuchService(service.clone())),
    }
    let Some(set) = snapshot.config().route_set(service, caller_namespace, port) else {
        return Ok(RouteDecision::to_the_service(service, port));
    };
    let action = set
        .find(port, head)
        .ok_or_else(|| RouteError::NoMatch(service.clone()))?;
    if action.backends.iter().all(|backend| backend.weight == 0) {
        return Err(RouteError::NoBackends(action.rule.clone()));
    }
    Ok(RouteDecision::of(action, port))
}

/// Draws the backend that answers, by weight, from a uniform random number. Retries stay with it.
///
/// # Errors
/// [`RouteError::InvalidBackend`] if the one drawn is not registered, or has no such HTTP port. Its share of the
/// requests is not given to the others. [`RouteError::NoBackends`] if there is nothing to draw from.
pub fn choose_backend(
    snapshot: &Snapshot,
    decision: &RouteDecision,
    draw: u64,
) -> Result<(ServiceName, u16), RouteError> {
    let weights = decision
        .backends
        .iter()
        .map(|backend| u64::from(backend.weight));
    let sum: u64 = weights.sum();
    let mut left = below(draw, sum);
    for backend in decision.backends.iter() {
        let weight = u64::from(backend.weight);
        if left >= weight {
            left -= weight;
            continue;
        }
        let port = backend.port.unwrap_or(decision.port);
        let refuse = |reason| {
            Err(RouteError::InvalidBackend {
                rule: decision.rule.clone(),
                backend: format!("{}:{port}", backend.service),
                reason,
            })
        };
        let Some(service) = snapshot.services.get(&backend.service) else {
            return refuse("which is not a registered service");
        };
        return match service.ports.get(&port) {
            Some(PortProtocol::Http) => Ok((backend.service.clone(), port)),
            Some(PortProtocol::Tcp) => refuse("which is a TCP port"),
            // Nobody is there who could say which ports it has: that is "no endpoints", 503.
            None if service.endpoints.is_empty() => Ok((backend.service.clone(), port)),
            None => refuse("which is not a port of the service"),
        };
    }
    Err(RouteError::NoBackends(decision.rule.clone()))
}

/// A number below `bound` from a uniform one: its high bits, so that small bounds are as good as large ones.
pub(crate) fn below(draw: u64, bound: u64) -> u64 {
    u64::try_from((u128::from(draw) * u128::from(bound)) >> 64).expect("less than bound")
}

impl RouteDecision {
    fn of(action: &Action, port: u16) -> Self {
        Self {
            rule: action.rule.clone(),
            backends: action.backends.clone(),
            timeout: action.timeout,
            backend_timeout: action.backend_timeout,
            retry: action.retry.clone(),
            request_headers: action.request_headers.clone(),
            response_headers: action.response_headers.clone(),
            port,
        }
    }

    fn to_the_service(service: &ServiceName, port: u16) -> Self {
        Self {
            rule: Arc::from(DEFAULT_RULE),
            backends: Arc::new([Backend {
                service: service.clone(),
                port: None,
                weight: 1,
            }]),
            timeout: None,
            backend_timeout: None,
            retry: RetryPolicy::default(),
            request_headers: Arc::default(),
            response_headers: Arc::default(),
            port,
        }
    }
}
