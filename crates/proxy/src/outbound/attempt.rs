//! Sending a request to one instance, and to another one if that fails and it is safe.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use weft_env::mutants::{Mutant, broken as is_broken};
use weft_policy::RouteDecision;
use weft_policy::retry::{self, Failure, RetryDecision};
use weft_resources::ServiceName;
use weft_transport::{RecvStream, SendStream};

use super::content::Content;
use super::outcome::{
    Answer, Missed, app_was_not_reached, blame, broken, failed_status, given_up, no_endpoint,
    unsent,
};
use super::upload::{Cut, Upload, pump};
use crate::inbound::app::AbortOnDrop;
use crate::node::Node;
use crate::record::Record;
use crate::respond::{Fact, Refusal};
use crate::running::{Instance, Port};

/// How long an application that waits to be told to send its content does so at most.
const CONTINUE: Duration = Duration::from_secs(1);

/// One request and where it may go.
pub(super) struct Transaction<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) service: &'a ServiceName,
    pub(super) port: &'a Port,
    pub(super) decision: &'a RouteDecision,
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
        let outcome = {
            let exchange = pin!(self.exchange(instance, request, upload, record));
            match (attempt_deadline, limit) {
                (Some(deadline), Some(limit)) => timeout_at(deadline, exchange)
                    .await
                    .unwrap_or_else(|_| Err(self.too_slow(instance, limit))),
                _ => exchange.await,
            }
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
            Upload::Stream(_) | Upload::Expected(_) | Upload::Gone => (Bytes::new(), false),
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
        if let Some((body, expected)) = upload.take_stream() {
            let early = if expected {
                self.until_wanted(instance, &mut recv).await?
            } else {
                None
            };
            let (response, recv, upload) = match early {
                Some(response) => (response, recv, Some(self.unwanted(send))),
                // In a box of its own: most requests have no content that is passed on as it comes.
                None => Box::pin(self.streamed(instance, body, send, recv, record)).await?,
            };
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

    /// Waits until the called side wants the request's content, which the application sends when it is told to. The head
    /// of its answer, if it answers without.
    async fn until_wanted(
        &self,
        instance: &Instance,
        recv: &mut RecvStream,
    ) -> Result<Option<Response<()>>, Missed> {
        match timeout(CONTINUE, recv.response_or_interim()).await {
            Ok(head) => head.map_err(|error| broken(self.service, instance, &error)),
            // Not everybody says it (RFC 9110 §10.1.1).
            Err(_) => Ok(None),
        }
    }

    /// Keeps the request's half of a stream open, of which nothing more will come, while its answer comes: over TCP a
    /// reset would end both.
    fn unwanted(&self, send: SendStream) -> AbortOnDrop {
        let kept = self.node.traffic.spawn(async move {
            let _send = send;
            std::future::pending::<()>().await;
        });
        AbortOnDrop(kept.abort_handle())
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

async fn wait(after: Duration) {
    if !after.is_zero() {
        sleep(after).await;
    }
}
