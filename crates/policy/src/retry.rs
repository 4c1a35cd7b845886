//! Which failures are tried again.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use weft_resources::HttpRouteRetry;

/// Retries of a request that no route says anything about, and of a stanza without `attempts`.
pub const DEFAULT_RETRIES: u32 = 2;

/// Which failures are tried again, and how often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Most retries after the first attempt.
    pub retries: u32,
    /// Least wait before a retry.
    pub backoff: Duration,
    /// Statuses that are tried again.
    pub codes: Arc<[u16]>,
    /// Whether a route asks for retries (GEP-1731), or this is the default.
    pub asked_for: bool,
}

/// Without a route: what could not have been processed, and for idempotent methods what was cut off, goes to
/// another endpoint at once.
impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            retries: DEFAULT_RETRIES,
            backoff: Duration::ZERO,
            codes: Arc::from([]),
            asked_for: false,
        }
    }
}

impl RetryPolicy {
    /// As a route says it.
    #[must_use]
    pub fn from_stanza(stanza: &HttpRouteRetry) -> Self {
        Self {
            retries: stanza.attempts.unwrap_or(DEFAULT_RETRIES),
            backoff: stanza
                .backoff
                .as_ref()
                .map_or(Duration::ZERO, |backoff| backoff.value()),
            codes: Arc::from(stanza.codes.as_slice()),
            asked_for: true,
        }
    }
}

/// How an attempt failed. None of its response has gone to the caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No connection to the endpoint.
    ConnectFailed,
    /// The peer says that it processed nothing (`H3_REQUEST_REJECTED`, or a stream beyond its GOAWAY).
    Refused,
    /// The attempt was cut off before a response. It may have been processed.
    ResetBeforeResponse,
    /// The attempt took longer than `backendRequest`. It may have been processed.
    BackendTimeout,
    /// A response with this status. It was processed.
    Status(u16),
}

impl Failure {
    /// Whether the application cannot have seen the request.
    #[must_use]
    pub fn nothing_processed(self) -> bool {
        matches!(self, Self::ConnectFailed | Self::Refused)
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryDecision {
    /// Try again.
    Retry {
        /// After this wait, if the request's own deadline leaves time for it.
        after: Duration,
        /// Whether it must be an endpoint that this request has not tried yet. If not, an untried one is
        /// preferred still.
        elsewhere_only: bool,
    },
    /// Answer with the failure.
    GiveUp,
}

/// Whether a method may be repeated without a changed meaning (RFC 9110 §9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    [
        Method::GET,
        Method::HEAD,
        Method::OPTIONS,
        Method::TRACE,
        Method::PUT,
        Method::DELETE,
    ]
    .contains(method)
}

/// Decides after `attempts` attempts (1 after the first) of which the last failed so. `body_replayable`: the
/// body can be sent again from its start, because there is none, none of it was sent, or it is kept.
#[must_use]
pub fn decide(
    policy: &RetryPolicy,
    attempts: u32,
    failure: Failure,
    idempotent: bool,
    body_replayable: bool,
) -> RetryDecision {
    let worth_it = match failure {
        Failure::ConnectFailed | Failure::Refused | Failure::ResetBeforeResponse => true,
        Failure::BackendTimeout => policy.asked_for,
        Failure::Status(status) => policy.codes.contains(&status),
    };
    // RFC 9110 §9.2.2: a proxy must not repeat what may have been processed and is not idempotent.
    let safe = body_replayable && (idempotent || failure.nothing_processed());
    if attempts > policy.retries || !worth_it || !safe {
        return RetryDecision::GiveUp;
    }
    RetryDecision::Retry {
        after: policy.backoff,
        // Who refused on a connection that is being replaced, as rotation does, may take it on the next one.
        elsewhere_only: !policy.asked_for && failure != Failure::Refused,
    }
}
