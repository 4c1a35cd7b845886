//! The accepting side's requests.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode, header};
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;
use weft_env::Stream;

use super::recv::RecvHalf;
use super::send::SendHalf;
use super::shared::{Half, Shared};
use super::wire::{Counted, TcpWire};
use super::{MAX_FIELDS, keep_alive};
use crate::core::Core;
use crate::registry::Link;
use crate::{Handler, ServerRequest};

pub(super) type Http2 = Connection<Counted<TlsStream<Stream>>, Bytes>;

/// Requests that a peer may give up in a second. More is an attack (rapid reset, CVE-2023-44487).
const MAX_ABANDONED: u64 = 1_000;
const ABANDONED_WITHIN: Duration = Duration::from_secs(1);
/// Time for the last frames of a connection that is cut.
const LAST_WORDS: Duration = Duration::from_millis(100);

pub(super) async fn handshake(
    core: &Core,
    stream: Counted<TlsStream<Stream>>,
) -> Result<Http2, h2::Error> {
    let (profile, limits) = (&core.config.profile, &core.config.limits);
    Builder::new()
        .initial_window_size(profile.stream_window)
        .initial_connection_window_size(profile.connection_window)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.max_requests)
        .handshake(stream)
        .await
}

/// Serves a connection until it ends, and gives the reason.
pub(super) async fn attend(
    core: &Arc<Core>,
    link: &Arc<Link>,
    wire: &Arc<TcpWire>,
    handler: Arc<dyn Handler>,
    mut http: Http2,
) -> String {
    let token = core.tasks.token();
    let pings = http.ping_pong();
    let alive = async {
        match pings {
            Some(pings) => keep_alive::watch(pings, wire, core.config.liveness).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(alive);
    let (mut retiring, mut calm) = (false, Calm::default());
    let (reason, code) = loop {
        tokio::select! {
            biased;
            () = token.cancelled() => break ("the node is shutting down".to_owned(), Reason::NO_ERROR),
            () = wire.cut() => break (wire.lost().unwrap_or_default(), Reason::NO_ERROR),
            () = link.retired.cancelled(), if !retiring => {
                retiring = true;
                // GOAWAY in two steps (RFC 9113 §6.8); it ends when the last request has.
                http.graceful_shutdown();
            }
            dead = &mut alive => return dead,
            next = http.accept() => match next {
                None => return "it was closed".to_owned(),
                Some(Err(error)) => return error.to_string(),
                Some(Ok((request, respond))) => {
                    if calm.is_lost(wire.abandoned(), Instant::now()) {
                        let why = "the peer gives up its requests faster than a caller would".to_owned();
                        let (way, from) = (link.terms.direction, link.remote());
                        core.refusals.record(way, from, "excessive_resets", why.clone());
                        break (why, Reason::ENHANCE_YOUR_CALM);
                    }
                    serve(core, link, wire, &handler, request, respond);
                }
            },
        }
    };
    http.abrupt_shutdown(code);
    let _ = timeout(LAST_WORDS, std::future::poll_fn(|cx| http.poll_closed(cx))).await;
    reason
}

fn serve(
    core: &Arc<Core>,
    link: &Arc<Link>,
    wire: &Arc<TcpWire>,
    handler: &Arc<dyn Handler>,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    link.load.count();
    let (parts, body) = request.into_parts();
    let request = match incoming(Request::from_parts(parts, ())) {
        Ok(request) => request,
        Err(status) => {
            let mut answer = Response::new(());
            *answer.status_mut() = status;
            // A peer that has left needs no answer.
            let _ = respond.send_response(answer, true);
            return;
        }
    };
    let tunnel = request.method() == Method::CONNECT;
    let stream = Shared::new(Half::Head(respond), Arc::clone(wire), false);
    let request = ServerRequest {
        peer: link.peer.clone(),
        remote: link.remote(),
        negotiated: link.negotiated,
        local: wire.local(),
        request,
        recv: RecvHalf::request(Arc::clone(&stream), body).into(),
        send: SendHalf::response(stream, tunnel).into(),
    };
    let handler = Arc::clone(handler);
    core.tasks
        .spawn(async move { handler.handle(request).await });
}

/// Checks what `h2` leaves to us, so that handlers see what they see over HTTP/3.
fn incoming(mut request: Request<()>) -> Result<Request<()>, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    if request.headers().len() > MAX_FIELDS {
        return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    }
    // It was not offered (RFC 8441 §3).
    if request.extensions().get::<h2::ext::Protocol>().is_some() {
        return Err(BAD);
    }
    let host = match request.headers().get(header::HOST) {
        Some(host) => Some(Authority::try_from(host.as_bytes()).map_err(|_| BAD)?),
        None => None,
    };
    if request.headers().get_all(header::HOST).iter().count() > 1 {
        return Err(BAD);
    }
    let mut parts = request.uri().clone().into_parts();
    let authority = match (parts.authority.take(), host) {
        (Some(authority), Some(host)) if authority != host => return Err(BAD),
        (Some(authority), _) | (None, Some(authority)) => authority,
        (None, None) => return Err(BAD),
    };
    // RFC 9113 §8.3.1: no user information.
    if authority.as_str().contains('@') || authority.host().is_empty() {
        return Err(BAD);
    }
    if request.method() == Method::CONNECT {
        // RFC 9113 §8.5.
        if authority.port_u16().is_none_or(|port| port == 0) {
            return Err(BAD);
        }
    } else {
        let path = parts
            .path_and_query
            .as_ref()
            .map_or("", |path| path.as_str());
        let whole = path == "*" && request.method() == Method::OPTIONS;
        if !path.starts_with('/') && !whole {
            return Err(BAD);
        }
        // `h2` drops it where there is no `:authority`.
        parts.scheme.get_or_insert(http::uri::Scheme::HTTPS);
    }
    parts.authority = Some(authority);
    *request.uri_mut() = http::Uri::from_parts(parts).map_err(|_| BAD)?;
    Ok(request)
}

/// Counts requests that the peer gave up.
#[derive(Default)]
struct Calm {
    window: Option<(Instant, u64)>,
}

impl Calm {
    /// Whether the peer has given up too many within a second; `abandoned` is how many it ever has.
    fn is_lost(&mut self, abandoned: u64, now: Instant) -> bool {
        match self.window {
            Some((began, before)) if now.duration_since(began) < ABANDONED_WITHIN => {
                abandoned - before > MAX_ABANDONED
            }
            _ => {
                self.window = Some((now, abandoned));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: Method, uri: &str, fields: &[(&'static str, &str)]) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = method;
        *request.uri_mut() = uri.parse().unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn what_http3_would_call_malformed_is_refused() {
        let (get, connect) = (Method::GET, Method::CONNECT);
        let cases = [
            (
                request(get.clone(), "https://a.b:80/x", &[]),
                Ok("https://a.b:80/x"),
            ),
            (
                request(get.clone(), "/x", &[("host", "a.b:80")]),
                Ok("https://a.b:80/x"),
            ),
            (request(connect.clone(), "a.b:5432", &[]), Ok("a.b:5432")),
            (
                request(get.clone(), "https://a.b/x", &[("host", "c.d")]),
                Err(400),
            ),
            (request(get.clone(), "/x", &[]), Err(400)),
            (
                request(get.clone(), "/x", &[("host", "a"), ("host", "a")]),
                Err(400),
            ),
            (request(get.clone(), "https://u@a.b/x", &[]), Err(400)),
            (request(get, "*", &[("host", "a.b")]), Err(400)),
            (request(connect.clone(), "a.b", &[]), Err(400)),
            (request(connect, "a.b:0", &[]), Err(400)),
        ];
        for (request, expected) in cases {
            let shown = format!("{request:?}");
            let outcome = incoming(request)
                .map(|request| request.uri().to_string())
                .map_err(|status| status.as_u16());
            assert_eq!(outcome, expected.map(str::to_owned), "{shown}");
        }
        let many: Vec<_> = (0..129).map(|_| ("x-a", "b")).collect();
        let many = request(Method::GET, "https://a.b/", &many);
        assert_eq!(incoming(many).unwrap_err().as_u16(), 431);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_may_give_up_a_thousand_requests_in_a_second_and_no_more() {
        let (mut calm, now) = (Calm::default(), Instant::now());
        assert!(!calm.is_lost(5, now));
        assert!(!calm.is_lost(1_005, now));
        assert!(calm.is_lost(1_006, now));
        assert!(!calm.is_lost(1_006, now + ABANDONED_WITHIN), "a new second");
        assert!(!calm.is_lost(2_006, now + ABANDONED_WITHIN));
    }
}
