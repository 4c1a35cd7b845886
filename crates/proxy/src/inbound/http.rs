//! One HTTP request of the mesh, passed to the application and back.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Method, Request, Response, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use weft_env::mutants::{Mutant, broken};
use weft_policy::retry::is_idempotent;
use weft_transport::{Code, RecvStream, SendStream};

use super::app::{App, Connection};
use super::body::{AppBody, MeshBody};
use super::caller::Caller;
use super::refuse;
use crate::headers::{append_via, content_length, sanitise_trailers, strip_hop_by_hop};
use crate::node::Node;
use crate::record::Record;
use crate::respond::{Fact, Refusal};
use crate::xfcc;

/// A response of known length up to this waits a moment for its content, so that head and content leave
/// in one write: one packet instead of two.
const TOGETHER: u64 = 16 * 1024;
/// That moment. Applications write both at once, or need far longer than this.
const MOMENT: Duration = Duration::from_millis(2);

/// How a request is to be passed on.
pub(super) struct Forward<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) app: &'a Arc<App>,
    pub(super) caller: &'a Caller,
    /// The path, if not the one that came.
    pub(super) path: Option<String>,
}

impl Forward<'_> {
    pub(super) async fn run(
        self,
        request: Request<()>,
        mut send: SendStream,
        recv: RecvStream,
        mut record: Record,
    ) {
        let stopped = send.stopped();
        let work = async {
            match self.exchange(request, recv, &mut record).await {
                Ok((response, connection)) => self
                    .reply(response, &mut send, &mut record)
                    .await
                    .then_some(connection),
                Err((refusal, recv)) => {
                    match recv {
                        Some(recv) => refuse(&mut send, recv, &mut record, &refusal).await,
                        None => refuse_late(&mut send, &mut record, &refusal).await,
                    }
                    None
                }
            }
        };
        let clean = tokio::select! {
            biased;
            clean = work => clean,
            // The caller gave up or is gone: dropping the exchange cuts the application's connection,
            // which is how HTTP/1.1 says so.
            _ = stopped => None,
        };
        drop(record);
        if let Some(connection) = clean {
            self.app.give_back(connection).await;
        }
    }

    /// Sends the request and waits for the head of its response.
    async fn exchange(
        &self,
        request: Request<()>,
        recv: RecvStream,
        record: &mut Record,
    ) -> Result<(Response<Incoming>, Connection), (Refusal, Option<RecvStream>)> {
        let (head, body) = match self.prepare(request, recv, record).await {
            Ok(prepared) => prepared,
            Err((refusal, recv)) => return Err((refusal, Some(recv))),
        };
        record.attempts = 1;
        let repeatable = is_idempotent(head.method()) && matches!(body, AppBody::Empty);
        let mut request = head.map(|()| body);
        if let Some(mut reused) = self.app.reuse() {
            let copy = repeatable.then(|| copy_of(&request));
            match reused.send(request).await {
                Ok(response) => return Ok((response, reused)),
                // An idle connection that the application closed at this very moment: not its answer.
                Err(failed) => match failed.unsent.map(|unsent| *unsent).or(copy) {
                    Some(again) if failed.refusal.fact == Fact::AppReset => request = again,
                    _ => return Err((failed.refusal, None)),
                },
            }
            record.attempts = 2;
        }
        let mut connection = self.app.open().await.map_err(|refusal| (refusal, None))?;
        match connection.send(request).await {
            Ok(response) => Ok((response, connection)),
            Err(failed) => Err((failed.refusal, None)),
        }
    }

    /// The request as the application gets it.
    async fn prepare(
        &self,
        request: Request<()>,
        mut recv: RecvStream,
        record: &Record,
    ) -> Result<(Request<()>, AppBody), (Refusal, RecvStream)> {
        let (mut parts, ()) = request.into_parts();
        let headers = &mut parts.headers;
        strip_hop_by_hop(headers);
        if headers.contains_key(header::TE) {
            // It wants trailers. An HTTP/1.1 server sends them to who asks on its own connection only
            // (RFC 9110 §10.1.4).
            headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
        }
        headers.remove(header::EXPECT);
        headers.remove(header::HOST);
        if let Some(host) = host(&parts.uri) {
            headers.insert(header::HOST, host);
        }
        if !(broken(Mutant::BelievesTheCaller) && headers.contains_key(xfcc::HEADER)) {
            headers.insert(xfcc::HEADER, self.caller.xfcc.clone());
        }
        if !append_via(headers, self.node.inbound.via_from(record.carrier)) {
            let details = "the request has been through this sidecar several times already";
            return Err((Refusal::new(Fact::Loop, details), recv));
        }
        let body = match first_piece(&parts.method, headers, &mut recv).await {
            Ok(Start::None) => AppBody::Empty,
            Ok(Start::Later) => mesh(None, recv, record),
            Ok(Start::Piece(first)) => mesh(Some(first), recv, record),
            Err(error) => {
                let details = format!("the request broke off: {error}");
                return Err((Refusal::new(Fact::BadRequest, details), recv));
            }
        };
        let has_length = parts.headers.contains_key(header::CONTENT_LENGTH);
        if matches!(body, AppBody::Mesh(_)) && !has_length {
            // Else hyper takes a GET to have no body, whatever comes.
            let chunked = HeaderValue::from_static("chunked");
            parts.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        parts.uri = origin_form(&parts.uri, self.path.as_deref());
        parts.version = Version::HTTP_11;
        Ok((Request::from_parts(parts, ()), body))
    }

    /// Passes the response on. True if it went to its end, so that the connection can be used again.
    async fn reply(
        &self,
        response: Response<Incoming>,
        send: &mut SendStream,
        record: &mut Record,
    ) -> bool {
        let (mut parts, mut body) = response.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        record.answered(parts.status);
        parts.version = Version::HTTP_3;
        let (first, end) = match first_frame(&parts.headers, &mut body).await {
            Ok(start) => start,
            Err(error) => return broke_off(send, record, &error),
        };
        record.took(first.len());
        let head = Response::from_parts(parts, ());
        if let Err(error) = send.send_response_with(&head, first, end).await {
            return left(record, &error);
        }
        if end {
            record.ended();
            return true;
        }
        self.reply_body(body, send, record).await
    }

    async fn reply_body(
        &self,
        mut body: Incoming,
        send: &mut SendStream,
        record: &mut Record,
    ) -> bool {
        loop {
            let frame = match body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return broke_off(send, record, &error),
                None => break,
            };
            let sent = match frame.into_data() {
                Ok(data) => {
                    record.took(data.len());
                    send.send_data(data).await
                }
                Err(frame) => send_trailers(frame, send).await,
            };
            if let Err(error) = sent {
                return left(record, &error);
            }
        }
        if let Err(error) = send.finish().await {
            return left(record, &error);
        }
        record.ended();
        true
    }
}

async fn send_trailers(
    frame: Frame<Bytes>,
    send: &mut SendStream,
) -> Result<(), weft_transport::StreamError> {
    let Ok(mut trailers) = frame.into_trailers() else {
        return Ok(());
    };
    sanitise_trailers(&mut trailers);
    send.send_trailers(&trailers).await
}

/// The request's stream is with hyper: there is nothing left of it to stop.
async fn refuse_late(send: &mut SendStream, record: &mut Record, refusal: &Refusal) {
    record.refused(refusal);
    let (mut response, text) = record.speaker().answer(refusal);
    response.headers_mut().remove(header::CONNECTION);
    let _ = send
        .send_response_with(&response, Bytes::from(text), true)
        .await;
}

/// The application's response is cut short: so must the caller's be, and never a clean end.
fn broke_off(send: &mut SendStream, record: &mut Record, error: &hyper::Error) -> bool {
    send.reset(Code::INTERNAL_ERROR);
    record.broke_off(super::app::said(error));
    false
}

fn left(record: &mut Record, error: &weft_transport::StreamError) -> bool {
    record.left(error.to_string());
    false
}

fn mesh(first: Option<Bytes>, recv: RecvStream, record: &Record) -> AppBody {
    AppBody::Mesh(Box::new(MeshBody::new(
        first,
        recv,
        Arc::clone(&record.sent),
    )))
}

enum Start {
    None,
    Later,
    Piece(Bytes),
}

/// Whether the request has a body. HTTP/3 says so by ending the stream, HTTP/1.1 must say so in the head:
/// where the head does not tell and the method usually has none, the first bytes or the end decide.
async fn first_piece(
    method: &Method,
    headers: &HeaderMap,
    recv: &mut RecvStream,
) -> Result<Start, weft_transport::StreamError> {
    match headers.get(header::CONTENT_LENGTH) {
        Some(length) if length != "0" => return Ok(Start::Later),
        _ => {}
    }
    let usually_none = matches!(
        *method,
        Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE | Method::TRACE
    );
    let first = if usually_none {
        recv.data().await?
    } else {
        match now(recv.data()).await {
            Some(first) => first?,
            None => return Ok(Start::Later),
        }
    };
    Ok(match first {
        Some(first) => Start::Piece(first),
        None if recv.is_end() => Start::None,
        // Trailers and nothing else.
        None => Start::Later,
    })
}

/// The outcome of a future if it is there without waiting.
async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The first content of a response, if it is short or there already, and whether it is all.
async fn first_frame(
    headers: &HeaderMap,
    body: &mut Incoming,
) -> Result<(Bytes, bool), hyper::Error> {
    if body.is_end_stream() {
        return Ok((Bytes::new(), true));
    }
    let Some(length) = content_length(headers).filter(|length| *length <= TOGETHER) else {
        return Ok((Bytes::new(), false));
    };
    match timeout(MOMENT, body.frame()).await {
        Ok(Some(Ok(frame))) => {
            let first = frame.into_data().unwrap_or_default();
            let all = first.len() as u64 == length;
            Ok((first, all))
        }
        Ok(Some(Err(error))) => Err(error),
        Ok(None) => Ok((Bytes::new(), true)),
        Err(_) => Ok((Bytes::new(), false)),
    }
}

/// The same head again, for a request without body.
fn copy_of(request: &Request<AppBody>) -> Request<AppBody> {
    let mut copy = Request::new(AppBody::Empty);
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

/// `Host` for the application (RFC 9112 §3.2): the authority, without the port that plain HTTP implies.
fn host(uri: &Uri) -> Option<HeaderValue> {
    let authority = uri.authority()?;
    let text = authority.as_str();
    HeaderValue::try_from(text.strip_suffix(":80").unwrap_or(text)).ok()
}

/// The target as a server expects it (RFC 9112 §3.2.1): path and query.
fn origin_form(uri: &Uri, path: Option<&str>) -> Uri {
    let given = uri.path_and_query().cloned();
    let rewritten = path.and_then(|path| {
        let text = match uri.query() {
            Some(query) => format!("{path}?{query}"),
            None => path.to_owned(),
        };
        PathAndQuery::try_from(text).ok()
    });
    let path = rewritten
        .or(given)
        .unwrap_or_else(|| PathAndQuery::from_static("/"));
    Uri::from(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_application_gets_origin_form_with_the_path_that_was_decided_on() {
        for (uri, path, expected) in [
            ("http://invoices.default:80/a?b=c", None, "/a?b=c"),
            ("http://invoices.default:80/x/../a?b", Some("/a"), "/a?b"),
            ("http://invoices.default:80", None, "/"),
        ] {
            let uri: Uri = uri.parse().unwrap();
            assert_eq!(origin_form(&uri, path).to_string(), expected);
        }
    }

    #[test]
    fn host_leaves_out_the_port_that_http_implies() {
        for (uri, expected) in [
            ("http://invoices.default:80/", "invoices.default"),
            ("http://invoices.default:8080/", "invoices.default:8080"),
        ] {
            assert_eq!(host(&uri.parse().unwrap()).unwrap(), expected);
        }
    }
}
