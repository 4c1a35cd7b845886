//! What the own application asks of the mesh: finding who answers, and passing it on.
//!
//! In the order that a request meets them: `mod` (accept, HTTP/1.1), `request` (which service, which rule),
//! `attempt` (which instance, again if it fails), `outcome` (what comes of one), `upload` and `reply` (the bodies), `content` (what is left
//! of a request when its answer came first). `tcp` does the same for byte streams, `ports` opens the local ports
//! that lead to them; `unparsed` answers what is not HTTP, `last_call` what is under way at the sidecar's end.

mod attempt;
pub(crate) mod content;
mod last_call;
mod outcome;
pub(crate) mod ports;
pub(crate) mod reply;
mod request;
mod tcp;
mod unparsed;
mod upload;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use http::{HeaderValue, Method, Request, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::sync::CancellationToken;
use weft_env::{Listener, Stream};

use crate::accept;
use crate::node::Node;
use content::{Content, Unread};
use last_call::LastCall;
pub(crate) use tcp::serve as serve_tcp;
use unparsed::{Counted, Open, Wire};

/// Largest request head taken from the application, in bytes, and its number of fields
/// (proxy-semantics §2).
const MAX_HEAD: usize = 60 * 1024;
const MAX_FIELDS: usize = 100;
/// hyper reads at most this far ahead of us.
const READ_AHEAD: usize = 128 * 1024;

/// Serves the outbound HTTP listener until `node.listening` is shut down.
pub(crate) async fn serve(node: Arc<Node>, listener: Arc<Listener>) {
    let stop = node.listening.token();
    let traffic = node.traffic.clone();
    let places = Arc::clone(&node.http_places);
    accept::each(
        &listener,
        node.doors.gate(),
        &stop,
        &traffic,
        &places,
        "outbound",
        |stream, place| {
            let (node, stop) = (Arc::clone(&node), stop.clone());
            async move {
                connection(node, stream, stop).await;
                drop(place);
            }
        },
    )
    .await;
}

/// One connection of the application, with any number of requests one after another.
async fn connection(node: Arc<Node>, stream: Stream, stop: CancellationToken) {
    let (open, unread, last_call) = (Open::default(), Unread::default(), LastCall::default());
    let wire = TokioIo::new(Wire::new(stream, open.clone()));
    let (asked, left, call) = (Arc::clone(&node), unread.clone(), last_call.clone());
    let service = service_fn(move |request: Request<Incoming>| {
        let (node, exchange, left) = (Arc::clone(&asked), open.begin(), left.clone());
        let call = call.clone();
        let request = request.map(|body| Content::new(body, left.clone()));
        async move {
            let tunnel = request.method() == Method::CONNECT;
            let mut response = request::answer(Arc::clone(&node), request, &call).await;
            // The next request is for the process that has taken over, or cannot be told from the rest of this one's
            // content, which nobody takes any more (RFC 9112 §9.6).
            let last = node.doors.is_left() || left.is_left() && response.body().is_whole();
            if last && !tunnel {
                let close = HeaderValue::from_static("close");
                response.headers_mut().insert(header::CONNECTION, close);
            }
            Ok::<_, Infallible>(response.map(|reply| Counted::new(reply, exchange)))
        }
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(node.head_timeout)
        .max_headers(MAX_FIELDS)
        .max_header_size(MAX_HEAD)
        .max_buf_size(READ_AHEAD)
        // A proxy adds no date: it would be taken for the origin's.
        .auto_date_header(false)
        .serve_connection(wire, service)
        .with_upgrades();
    let served = tokio::select! {
        biased;
        served = &mut connection => Some(served),
        () = stop.cancelled() => None,
    };
    let served = match served {
        Some(served) => served,
        None => {
            // Ends after the request under way.
            Pin::new(&mut connection).graceful_shutdown();
            tokio::select! {
                biased;
                served = &mut connection => served,
                () = node.deadline.near() => {
                    last_call.ring();
                    (&mut connection).await
                }
            }
        }
    };
    // None once it has become a tunnel.
    let Some(parts) = connection.into_parts() else {
        return;
    };
    let (wire, error) = (parts.io.into_inner(), served.err());
    let begun = !parts.read_buf.is_empty();
    if let Some(error) = &error {
        tracing::debug!(%error, "a connection of the application ended early");
    }
    if error.as_ref().is_some_and(hyper::Error::is_user) {
        // A response broke off. Where its end is told by closing (HTTP/1.0), only a reset tells it from a
        // whole one.
        wire.into_stream().reset();
        return;
    }
    unparsed::end(&node, wire, error.as_ref(), begun, &unread).await;
}
