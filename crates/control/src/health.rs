//! `/metrics`, `/healthz` and `/readyz` on a local TCP port.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use weft_env::{Env, Listener, Tasks};
use weft_telemetry::{Direction, METRICS_CONTENT_TYPE, Side, Telemetry};
use weft_transport::Direction as Dialler;

use crate::VERSION;
use crate::accept;
use crate::error::ControlError;
use crate::node::Node;

/// Scrapers at once.
const MAX_CONNECTIONS: usize = 32;
/// Longest life of a connection: a scrape takes milliseconds.
const LIFE: Duration = Duration::from_secs(30);

/// Opens the port.
pub(crate) async fn listen(
    env: &Env,
    addr: SocketAddr,
) -> Result<(Listener, SocketAddr), ControlError> {
    let failed = |error: std::io::Error| ControlError::Listen {
        what: "the metrics address",
        addr,
        reason: error.to_string(),
    };
    let listener = env.listen(addr).await.map_err(failed)?;
    let local = listener.local_addr().map_err(failed)?;
    Ok((listener, local))
}

/// Serves it until the owner of `tasks` stops.
pub(crate) async fn serve(node: Arc<Node>, listener: Listener, tasks: Tasks) {
    let (stop, telemetry) = (tasks.token(), Arc::new(Telemetry::new(VERSION)));
    let at_once = ("the metrics port", MAX_CONNECTIONS);
    accept::each(listener, at_once, tasks, |stream| {
        let (node, telemetry, stop) = (node.clone(), telemetry.clone(), stop.clone());
        Some(async move {
            let service = service_fn(|request| {
                let reply = answer(&node, &telemetry, &request);
                async move { Ok::<_, Infallible>(reply) }
            });
            let serving = http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = timeout(LIFE, serving) => {}
            }
        })
    })
    .await;
}

fn answer(
    node: &Node,
    telemetry: &Telemetry,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "only GET\n".into(),
        );
    }
    match request.uri().path() {
        // This port opens when everything else serves.
        "/healthz" | "/readyz" => text(StatusCode::OK, "text/plain", "ok\n".into()),
        "/metrics" => {
            measure(node, telemetry);
            text(StatusCode::OK, METRICS_CONTENT_TYPE, telemetry.encode())
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "text/plain",
            "there are /metrics, /healthz and /readyz\n".into(),
        ),
    }
}

fn measure(node: &Node, telemetry: &Telemetry) {
    telemetry.set_revision(node.feed.revision());
    let not_after = node.own.source.current().svid.not_after();
    let left = not_after.duration_since(node.env.wall());
    telemetry.set_svid_left(left.unwrap_or_default());
    if let Ok(ca) = node.ca.info() {
        let live = ca.authorities.iter().filter(|a| a.state != "removed");
        telemetry.set_authorities_left(live.map(|a| {
            let left = Duration::from_secs(u64::try_from(a.seconds_left).unwrap_or(0));
            (a.role.as_str(), a.name.as_str(), left)
        }));
    }
    for ((direction, kind), total) in (node.handshakes)() {
        let direction = match direction {
            Dialler::Inbound => Direction::Accepted,
            Dialler::Outbound => Direction::Dialled,
        };
        telemetry.handshakes_total(direction, kind, total);
    }
    for (reason, total) in (node.refusals)() {
        telemetry.refusals_total(Side::Inbound, reason, total);
    }
}

fn text(status: StatusCode, kind: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
