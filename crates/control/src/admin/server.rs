//! Accepts connections on the local socket and answers requests, each within bounds.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body, Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_env::{Listener, Stream, Tasks};

use super::routes::{Answer, Reply};
use super::types::{Phase, Progress};
use super::{MAX_BODY, routes};
use crate::accept;
use crate::node::Node;
use crate::problem::Reject;

/// Connections at once. The command line uses one for each command.
const MAX_CONNECTIONS: usize = 64;
/// Time for a request's head and body to arrive; the sender is on this machine.
const ARRIVAL: Duration = Duration::from_secs(10);

/// Serves the socket until the owner of `tasks` stops.
pub(crate) async fn serve(node: Arc<Node>, listener: Listener, tasks: Tasks) {
    let stop = tasks.token();
    let at_once = ("the admin socket", MAX_CONNECTIONS);
    accept::each(listener, at_once, tasks, |stream| {
        if !may_use(&stream) {
            tracing::warn!(peer = ?stream.peer_cred(), "refused at the admin socket");
            return None;
        }
        Some(connection(node.clone(), stream, stop.clone()))
    })
    .await;
}

/// Whoever connects must be the user of this process, or root. The socket's mode says the same; this holds
/// even if someone changes it.
fn may_use(stream: &Stream) -> bool {
    match stream.peer_cred() {
        Some(peer) => peer.uid == 0 || peer.uid == rustix::process::geteuid().as_raw(),
        // A simulated stream has no users; any other stream is not a Unix socket.
        None => matches!(stream, Stream::Sim(_)),
    }
}

async fn connection(node: Arc<Node>, stream: Stream, stop: CancellationToken) {
    let by: Arc<str> = match stream.peer_cred() {
        Some(peer) => format!("uid {}", peer.uid).into(),
        None => "simulation".into(),
    };
    let service = service_fn(|request| {
        let (node, by) = (node.clone(), by.clone());
        async move { Ok::<_, Infallible>(respond(&node, request, &by).await) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ARRIVAL)
        .max_buf_size(64 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    tokio::select! {
        biased;
        result = serving.as_mut() => {
            if let Err(error) = result {
                tracing::debug!(%error, "an admin connection ended");
            }
            return;
        }
        () = stop.cancelled() => serving.as_mut().graceful_shutdown(),
    }
    let _ = serving.await;
}

type ReplyBody = Either<Full<Bytes>, Lines>;

async fn respond(node: &Arc<Node>, request: Request<Incoming>, by: &str) -> Response<ReplyBody> {
    let (head, body) = request.into_parts();
    let answer = match read_body(body).await {
        Ok(body) => routes::answer(node, &head.method, &head.uri, &body, by).await,
        Err(reject) => Err(reject),
    };
    match answer {
        Ok(Answer::Json(Reply { status, body })) => json(status, body),
        Ok(Answer::Progress(progress)) => {
            let mut response = Response::new(Either::Right(Lines::new(progress)));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/x-ndjson"),
            );
            response
        }
        Err(reject) => {
            tracing::debug!(code = reject.problem.code, "admin request refused");
            json(reject.status, reject.body())
        }
    }
}

fn json(status: StatusCode, body: Vec<u8>) -> Response<ReplyBody> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(body))));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

async fn read_body(body: Incoming) -> Result<Bytes, Reject> {
    let too_large = || {
        Reject::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "too_large",
            format!("the request has more than {MAX_BODY} bytes; apply fewer resources at once"),
        )
    };
    // Refused by its announced length before it is read.
    if usize::try_from(body.size_hint().lower()).is_ok_and(|announced| announced > MAX_BODY) {
        return Err(too_large());
    }
    let collected = timeout(ARRIVAL, Limited::new(body, MAX_BODY).collect()).await;
    match collected {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Reject::bad_request(
            "broken",
            format!("the request broke off: {error}"),
        )),
        Err(_) => Err(Reject::new(
            StatusCode::REQUEST_TIMEOUT,
            "timeout",
            "the request did not arrive in time",
        )),
    }
}

/// Progress as lines of JSON, as it changes, to the line that has `finished`.
struct Lines {
    next: Pin<Box<dyn Future<Output = Line> + Send>>,
    over: bool,
}

impl Lines {
    fn new(progress: watch::Receiver<Progress>) -> Self {
        Self {
            next: Box::pin(present(progress)),
            over: false,
        }
    }
}

/// What to write now, and where more comes from.
type Line = (Option<Progress>, Option<watch::Receiver<Progress>>);

async fn present(mut progress: watch::Receiver<Progress>) -> Line {
    let line = progress.borrow_and_update().clone();
    let rest = (!line.finished).then_some(progress);
    (Some(line), rest)
}

async fn changed(mut progress: watch::Receiver<Progress>) -> Line {
    if progress.changed().await.is_ok() {
        return present(progress).await;
    }
    let mut line = progress.borrow().clone();
    line.finished = true;
    line.phase = Phase::Failed;
    line.message = Some(
        "the control node stopped; it goes on with the rotation when it is started again"
            .to_owned(),
    );
    (Some(line), None)
}

impl Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let (line, rest) = ready!(self.next.as_mut().poll(cx));
        match rest {
            Some(progress) => self.next = Box::pin(changed(progress)),
            None => self.over = true,
        }
        Poll::Ready(line.map(|line| {
            let mut line = serde_json::to_vec(&line).unwrap_or_default();
            line.push(b'\n');
            Ok(Frame::data(Bytes::from(line)))
        }))
    }
}
