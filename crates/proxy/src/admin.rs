//! The local port for scrapers and supervisors: `/metrics`, `/healthz`, `/readyz`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{Semaphore, watch};
use weft_env::{Listener, Stream, Tasks};
use weft_telemetry::{METRICS_CONTENT_TYPE, Telemetry};

use crate::handover::doors::Gate;

/// Scrapers and probes at a time; more wait for a place.
const MAX_CONNECTIONS: usize = 64;
/// A probe that does not send its request in this time is cut.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether the sidecar can serve, and if not, why.
#[derive(Debug, Clone)]
pub(crate) struct Readiness(Arc<watch::Sender<Result<(), String>>>);

impl Readiness {
    pub(crate) fn not_yet(reason: &str) -> Self {
        Self(Arc::new(watch::Sender::new(Err(reason.to_owned()))))
    }

    pub(crate) fn set(&self, state: Result<(), String>) {
        self.0.send_if_modified(|old| {
            let changed = *old != state;
            *old = state;
            changed
        });
    }

    /// Waits until it can serve.
    pub(crate) async fn reached(&self) {
        // It fails only when there is no sender any more, and this is one.
        let _ = self.0.subscribe().wait_for(Result::is_ok).await;
    }
}

/// Serves until the tasks' token is cancelled.
pub(crate) async fn serve(
    listener: Arc<Listener>,
    gate: watch::Receiver<Gate>,
    tasks: Tasks,
    telemetry: Telemetry,
    readiness: Readiness,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let stop = tasks.token();
    crate::accept::each(
        &listener,
        gate,
        &stop,
        &tasks,
        &places,
        "metrics",
        |stream, place| {
            let (telemetry, readiness) = (telemetry.clone(), readiness.clone());
            async move {
                connection(stream, telemetry, readiness).await;
                drop(place);
            }
        },
    )
    .await;
}

async fn connection(stream: Stream, telemetry: Telemetry, readiness: Readiness) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&request, &telemetry, &readiness);
        async move { Ok::<_, Infallible>(response) }
    });
    // A prober that hangs up is none of our business.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer<B>(
    request: &Request<B>,
    telemetry: &Telemetry,
    readiness: &Readiness,
) -> Response<Full<Bytes>> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "only GET is known here\n".into(),
        );
    }
    match request.uri().path() {
        "/metrics" => {
            let mut response = text(StatusCode::OK, telemetry.encode());
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static(METRICS_CONTENT_TYPE),
            );
            response
        }
        "/healthz" => text(StatusCode::OK, "ok\n".into()),
        "/readyz" => match &*readiness.0.borrow() {
            Ok(()) => text(StatusCode::OK, "ready\n".into()),
            Err(reason) => text(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("not ready: {reason}\n"),
            ),
        },
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get(path: &str, readiness: &Readiness) -> (u16, String) {
        let request = Request::get(path).body(()).unwrap();
        let telemetry = Telemetry::new("0");
        let response = answer(&request, &telemetry, readiness);
        (response.status().as_u16(), format!("{:?}", response.body()))
    }

    #[test]
    fn readyz_says_why_not() {
        let readiness = Readiness::not_yet("no snapshot from a control node yet");
        let (code, body) = get("/readyz", &readiness);
        assert!(code == 503 && body.contains("no snapshot from"), "{body}");
        assert_eq!(get("/healthz", &readiness).0, 200);
        readiness.set(Ok(()));
        assert_eq!(get("/readyz", &readiness).0, 200);
        assert!(get("/metrics", &readiness).1.contains("weft_build_info"));
        assert_eq!(get("/other", &readiness).0, 404);
    }
}
