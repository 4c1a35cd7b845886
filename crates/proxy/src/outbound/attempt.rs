//! Sending a request to one instance, and to another one if that fails and it is safe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::time::{Instant, sleep, timeout_at};
use weft_env::mutants::{Mutant, broken as is_broken};
use weft_policy::RouteDecision;
use weft_policy::retry::{self, Failure, RetryDecision};
use weft_resources::ServiceName;
use weft_transport::{DialError, RequestError};
use weft_transport::{RecvStream, SendStream};

use super::content::Content;
use super::upload::{Cut, Upload, pump};
use crate::inbound::app::AbortOnDrop;
use crate::node::Node;
use crate::record::Record;
use crate::respond::{Fact, PROXY_STATUS, Refusal};
use crate::running::{Instance, Pending, Port};

/// One request and where it may go.
pub(super) struct Transaction<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) service: &'a ServiceName,
    pub(super) port: &'a Port,
    pub(super) decision: &'a RouteDecision,
}

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
    answer: Option<Box<Answer>>,
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

impl Transaction<'_> {
    /// Tries until there is a response, or no reason to go on.
    pub(super) async fn run(
        &self,
        request: &Request<()>,
        upload: &mut Upload,
        record: &mut Record,
    ) -> Result<Answer, Refusal> {
        let idempotent = retry::is_idempotent(request.method()) || is_broken(Mutant::RetriesAPost);
        let mut tried: Vec<Arc<Instance>> = Vec::new();
        let mut last: Option<Missed> = None;
        let mut again = false;
        loop {
            let draw = self.node.dice.pair();
            let picked = self.port.pick(&tried, again, self.node.uptime(), draw);
            let Some(instance) = picked else {
                return given_up(last.ok_or_else(|| no_endpoint(self.service)));
            };
            record.attempts += 1;
            if record.attempts > 1
                && let Some(edge) = &record.edge
            {
                edge.retried();
            }
            record.peer = Arc::clone(&instance.id);
            let missed = match self.attempt(&instance, request, upload, record).await {
                Ok(answer) => return Ok(answer),
                Err(missed) => missed,
            };
            let retry = retry::decide(
                &self.decision.retry,
                record.attempts,
                missed.failure,
                idempotent,
                upload.replayable(),
            );
            let RetryDecision::Retry {
                after,
                elsewhere_only,
            } = retry
            else {
                return given_up(Ok(missed));
            };
            tracing::debug!(instance = %instance.name, failure = ?missed.failure, "trying again");
            again = !elsewhere_only;
            tried.push(instance);
            last = Some(missed);
            wait(after).await;
        }
    }

    async fn attempt(
        &self,
        instance: &Arc<Instance>,
        request: &Request<()>,
        upload: &mut Upload,
        record: &mut Record,
    ) -> Result<Answer, Missed> {
        let began = Instant::now();
        let pending = instance.begin();
        let limit = self.decision.backend_timeout;
        let attempt_deadline = limit.map(|limit| began + limit);
        let exchange = self.exchange(instance, request, upload, record);
        let outcome = match (attempt_deadline, limit) {
            (Some(deadline), Some(limit)) => timeout_at(deadline, exchange)
                .await
                .unwrap_or_else(|_| Err(self.too_slow(instance, limit))),
            _ => exchange.await,
        };
        let now = self.node.uptime();
        let Arrived {
            response,
            recv,
            upload,
            sent_at,
        } = match outcome {
            Ok(arrived) => arrived,
            Err(missed) => {
                blame(self.node, instance, missed.failure);
                return Err(missed);
            }
        };
        let status = response.status();
        let answer = Answer {
            response,
            recv,
            instance: Arc::clone(instance),
            pending,
            upload,
            attempt_deadline,
        };
        if app_was_not_reached(answer.response.headers(), self.service) {
            instance.failed(now);
            return Err(failed_status(Failure::ConnectFailed, answer));
        }
        if self.decision.retry.codes.contains(&status.as_u16()) {
            instance.answered(sent_at.elapsed(), now);
            return Err(failed_status(Failure::Status(status.as_u16()), answer));
        }
        instance.answered(sent_at.elapsed(), now);
        Ok(answer)
    }

    fn too_slow(&self, instance: &Instance, limit: Duration) -> Missed {
        let details = format!(
            "instance {} of '{}' did not answer within {limit:?}, which {} allows for one attempt",
            instance.name, self.service, self.decision.rule
        );
        let refusal = Refusal::new(Fact::Timeout, details).by(&self.decision.rule);
        Missed::new(Failure::BackendTimeout, refusal)
    }

    /// Sends head and body, and waits for the head of the response.
    async fn exchange(
        &self,
        instance: &Arc<Instance>,
        request: &Request<()>,
        upload: &mut Upload,
        record: &mut Record,
    ) -> Result<Arrived, Missed> {
        let (content, end) = match upload {
            Upload::Whole(body) => (body.clone(), true),
            Upload::Stream(_) | Upload::Gone => (Bytes::new(), false),
        };
        let length = content.len() as u64;
        let opened = self
            .node
            .pool
            .request_with(&instance.target, request, content, end)
            .await;
        let (send, mut recv) = match opened {
            Ok(exchange) => {
                record.carried(&exchange);
                (exchange.send, exchange.recv)
            }
            Err(error) => return Err(unsent(self.service, instance, error)),
        };
        let sent_at = Instant::now();
        if matches!(upload, Upload::Stream(_))
            && let Upload::Stream(body) = std::mem::replace(upload, Upload::Gone)
        {
            let (response, recv, upload) =
                self.streamed(instance, body, send, recv, record).await?;
            return Ok(Arrived {
                response,
                recv,
                upload,
                sent_at,
            });
        }
        record
            .sent
            .store(length, std::sync::atomic::Ordering::Relaxed);
        match recv.response().await {
            Ok(response) => Ok(Arrived {
                response,
                recv,
                upload: None,
                sent_at,
            }),
            Err(error) => Err(broken(self.service, instance, &error)),
        }
    }

    /// As [`Transaction::exchange`], while the body is still coming from the application.
    async fn streamed(
        &self,
        instance: &Arc<Instance>,
        body: Content,
        send: SendStream,
        mut recv: RecvStream,
        record: &Record,
    ) -> Result<(Response<()>, RecvStream, Option<AbortOnDrop>), Missed> {
        let mut upload = Box::pin(pump(body, send, Arc::clone(&record.sent)));
        let mut uploaded = false;
        loop {
            tokio::select! {
                biased;
                head = recv.response() => {
                    let response = head.map_err(|error| broken(self.service, instance, &error))?;
                    let rest = (!uploaded).then(|| {
                        let rest = self.node.traffic.spawn(async move { drop(upload.await) });
                        AbortOnDrop(rest.abort_handle())
                    });
                    return Ok((response, recv, rest));
                }
                done = &mut upload, if !uploaded => match done {
                    Ok(()) => uploaded = true,
                    Err(Cut::Mesh(error)) => {
                        tracing::debug!(%error, "the rest of the request's body is not wanted");
                        uploaded = true;
                    }
                    Err(Cut::Local(error)) => {
                        let details = format!("the request's body broke off: {error}");
                        let refusal = Refusal::new(Fact::BadRequest, details);
                        return Err(Missed::new(Failure::ResetBeforeResponse, refusal));
                    }
                },
            }
        }
    }
}

/// The head of a response, as it came.
struct Arrived {
    response: Response<()>,
    recv: RecvStream,
    /// The rest of the request's body, if it is still being sent.
    upload: Option<AbortOnDrop>,
    /// When the request was on its way: what came before, such as a dial, says nothing about how fast the
    /// instance answers, and must not keep others from it for as long as a peak is remembered.
    sent_at: Instant,
}

/// The last attempt's response if it is one, or weft's own answer.
fn given_up(last: Result<Missed, Refusal>) -> Result<Answer, Refusal> {
    let missed = last?;
    match missed.answer {
        Some(answer) => Ok(*answer),
        None => Err(missed.refusal),
    }
}

async fn wait(after: Duration) {
    if !after.is_zero() {
        sleep(after).await;
    }
}

pub(super) fn no_endpoint(service: &ServiceName) -> Refusal {
    Refusal::new(
        Fact::NoEndpoint,
        format!("no instance of service '{service}' is there now"),
    )
}

fn failed_status(failure: Failure, answer: Answer) -> Missed {
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
