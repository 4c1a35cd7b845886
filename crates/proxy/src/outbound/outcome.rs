//! What comes of an attempt: an answer, or why there is none and whose fault that is.

use std::sync::Arc;

use http::{HeaderMap, Response};
use tokio::time::Instant;
use weft_policy::retry::Failure;
use weft_resources::ServiceName;
use weft_transport::{DialError, RecvStream, RequestError};

use crate::inbound::app::AbortOnDrop;
use crate::node::Node;
use crate::respond::{Fact, PROXY_STATUS, Refusal};
use crate::running::{Instance, Pending};

/// The head of a response, and what the rest of it needs.
pub(super) struct Answer {
    pub(super) response: Response<()>,
    pub(super) recv: RecvStream,
    pub(super) instance: Arc<Instance>,
    pub(super) pending: Pending,
    pub(super) upload: Option<AbortOnDrop>,
    pub(super) attempt_deadline: Option<Instant>,
}

/// An attempt that gave no response to pass on.
pub(super) struct Missed {
    pub(super) failure: Failure,
    pub(super) refusal: Refusal,
    /// The response that is the failure, if it may have to be passed on after all.
    pub(super) answer: Option<Box<Answer>>,
}

impl Missed {
    pub(super) fn new(failure: Failure, refusal: Refusal) -> Self {
        Self {
            failure,
            refusal,
            answer: None,
        }
    }
}

/// The last attempt's response if it is one, or weft's own answer.
pub(super) fn given_up(last: Result<Missed, Refusal>) -> Result<Answer, Refusal> {
    let missed = last?;
    match missed.answer {
        Some(answer) => Ok(*answer),
        None => Err(missed.refusal),
    }
}

pub(super) fn no_endpoint(service: &ServiceName) -> Refusal {
    Refusal::new(
        Fact::NoEndpoint,
        format!("no instance of service '{service}' is there now"),
    )
}

pub(super) fn failed_status(failure: Failure, answer: Answer) -> Missed {
    let status = answer.response.status();
    Missed {
        failure,
        refusal: Refusal::new(Fact::UpstreamReset, format!("the answer was {status}")),
        answer: Some(Box::new(answer)),
    }
}

/// The request was not sent, or certainly not processed.
pub(super) fn unsent(service: &ServiceName, instance: &Instance, error: RequestError) -> Missed {
    let place = format!("instance {} of '{service}'", instance.name);
    match error {
        RequestError::Dial(error) => Missed::new(
            Failure::ConnectFailed,
            Refusal::new(
                not_connected(&error),
                format!("{place} cannot be reached: {error}"),
            ),
        ),
        other => {
            let failure = if other.is_unprocessed() {
                Failure::Refused
            } else {
                Failure::ResetBeforeResponse
            };
            let details = format!("{place} did not take the request: {other}");
            Missed::new(failure, Refusal::new(Fact::UpstreamReset, details))
        }
    }
}

/// What a failed attempt says about the instance.
pub(super) fn blame(node: &Node, instance: &Instance, failure: Failure) {
    let now = node.uptime();
    match failure {
        Failure::ConnectFailed => instance.unreachable(now, node.dice.draw()),
        // Its connection is being replaced, which says nothing about the instance.
        Failure::Refused => {}
        // It broke: others are better for a while.
        _ => instance.failed(now),
    }
}

fn not_connected(error: &DialError) -> Fact {
    match error {
        DialError::Backoff { last, .. } => not_connected(last),
        DialError::Unreachable { quic, .. } => not_connected(quic),
        DialError::Unverified { .. } | DialError::NobodyExpected { .. } => Fact::PeerUnverified,
        DialError::RejectedByPeer { .. } => Fact::PeerRefusedUs,
        DialError::Timeout { .. } => Fact::ConnectTimeout,
        _ => Fact::ConnectFailed,
    }
}

/// There was no response.
pub(super) fn broken(
    service: &ServiceName,
    instance: &Instance,
    error: &weft_transport::StreamError,
) -> Missed {
    let failure = if error.is_unprocessed() {
        Failure::Refused
    } else {
        Failure::ResetBeforeResponse
    };
    let details = format!(
        "instance {} of '{service}' broke off before it answered: {error}",
        instance.name
    );
    Missed::new(failure, Refusal::new(Fact::UpstreamReset, details))
}

/// Whether the sidecar at the other end answered because its application could not be connected to: then
/// nothing was processed, and another instance can take the request whatever its method.
pub(super) fn app_was_not_reached(headers: &HeaderMap, service: &ServiceName) -> bool {
    let Some(status) = headers.get(PROXY_STATUS).and_then(|v| v.to_str().ok()) else {
        return false;
    };
    let inbound = format!("{service}/inbound; error=connection_");
    status
        .strip_prefix(&inbound)
        .is_some_and(|error| error.starts_with("refused;") || error.starts_with("timeout;"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_the_called_sidecars_word_counts_as_not_processed() {
        let service = ServiceName::new("default", "invoices").unwrap();
        for (status, expected) in [
            (
                "invoices.default/inbound; error=connection_refused; details=\"x\"",
                true,
            ),
            (
                "invoices.default/inbound; error=connection_timeout; details=\"x\"",
                true,
            ),
            (
                "invoices.default/inbound; error=connection_terminated; details=\"x\"",
                false,
            ),
            (
                "invoices.default/inbound; error=http_request_denied; details=\"x\"",
                false,
            ),
            ("somebody; error=connection_refused; details=\"x\"", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(PROXY_STATUS, HeaderValue::from_static(status));
            assert_eq!(
                app_was_not_reached(&headers, &service),
                expected,
                "{status}"
            );
        }
        assert!(!app_was_not_reached(&HeaderMap::new(), &service));
    }
}
