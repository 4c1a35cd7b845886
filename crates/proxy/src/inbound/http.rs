//! One HTTP request of the mesh, passed to the application and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;
use weft_env::mutants::{Mutant, broken};
use weft_policy::retry::is_idempotent;
use weft_transport::{Code, RecvStream, SendStream};

use super::app::{App, Connection};
use super::body::{AppBody, Start, first_piece};
use super::caller::Caller;
use super::refuse;
use crate::headers::{
    append_via, content_length, foreign_coding, sanitise_trailers, strip_hop_by_hop,
};
use crate::incomplete;
use crate::node::Node;
use crate::record::Record;
use crate::respond::{Fact, Refusal};
use crate::xfcc;

/// A response of known length up to this waits a moment for its content, so that head and content leave
/// in one write: one packet instead of two.
const TOGETHER: u64 = 16 * 1024;
/// That moment. Applications write both at once, or need far longer than this.
const MOMENT: Duration = Duration::from_millis(2);

/// How long a caller may take to read what there is of a response that broke off. A sidecar stops reading once it has seen
/// that; another client need not.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// How a request is to be passed on.
pub(super) struct Forward<'a> {
    pub(super) node: &'a Arc<Node>,
    pub(super) app: &'a Arc<App>,
    pub(super) caller: &'a Caller,
    /// The path, if not the one that came.
    pub(super) path: Option<String>,
}

/// How far a response got.
enum Passed {
    Whole,
    /// The application broke off; what to tell the caller.
    Cut(HeaderMap),
    /// The caller takes no more.
    Left,
}

/// What is left to do when an exchange is over.
enum Done {
    /// The connection can be used again.
    Clean(Connection),
    Cut(HeaderMap),
    Over,
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
            let (response, connection) = match self.exchange(request, recv, &mut record).await {
                Ok(exchanged) => exchanged,
                Err((refusal, Some(recv))) => {
                    refuse(&mut send, recv, &mut record, &refusal).await;
                    return Done::Over;
                }
                Err((refusal, None)) => {
                    refuse_late(&mut send, &mut record, &refusal).await;
                    return Done::Over;
                }
            };
            if let Err(refusal) = understood(&response) {
                refuse_late(&mut send, &mut record, &refusal).await;
                return Done::Over;
            }
            match self.reply(response, &mut send, &mut record).await {
                Passed::Whole => Done::Clean(connection),
                Passed::Cut(why) => Done::Cut(why),
                Passed::Left => Done::Over,
            }
        };
        let done = tokio::select! {
            biased;
            done = work => done,
            // The caller gave up or is gone: dropping the exchange cuts the application's connection,
            // which is how HTTP/1.1 says so.
            _ = stopped => Done::Over,
        };
        drop(record);
        match done {
            Done::Clean(connection) => self.app.give_back(connection).await,
            Done::Cut(why) => cut(send, &why).await,
            Done::Over => {}
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
            Ok(Start::Later) => AppBody::mesh(None, recv, &record.sent),
            Ok(Start::Piece(first)) => AppBody::mesh(Some(first), recv, &record.sent),
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

    /// Passes the response on.
    async fn reply(
        &self,
        response: Response<Incoming>,
        send: &mut SendStream,
        record: &mut Record,
    ) -> Passed {
        let (mut parts, mut body) = response.into_parts();
        strip_hop_by_hop(&mut parts.headers);
        record.answered(parts.status);
        parts.version = Version::HTTP_3;
        let (first, end, broken) = match first_frame(&parts.headers, &mut body).await {
            Ok((first, end)) => (first, end, None),
            // The head is the application's answer, whatever became of the rest.
            Err(error) => (Bytes::new(), false, Some(error)),
        };
        record.took(first.len());
        let head = Response::from_parts(parts, ());
        if let Err(error) = send.send_response_with(&head, first, end).await {
            return left(record, &error);
        }
        if let Some(error) = broken {
            return broke_off(record, &error);
        }
        if end {
            record.ended();
            return Passed::Whole;
        }
        self.reply_body(body, send, record).await
    }

    async fn reply_body(
        &self,
        mut body: Incoming,
        send: &mut SendStream,
        record: &mut Record,
    ) -> Passed {
        loop {
            let frame = match body.frame().await {
                Some(Ok(frame)) => frame,
                Some(Err(error)) => return broke_off(record, &error),
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
        Passed::Whole
    }
}

/// Refuses content that would arrive as something else (RFC 9112 §6.1).
fn understood(response: &Response<Incoming>) -> Result<(), Refusal> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let details = "the application switched to another protocol (101), such as WebSocket, which weft does not carry: bind a TCP port for it";
        return Err(Refusal::new(Fact::AppMalformed, details));
    }
    match foreign_coding(response.headers()) {
        Some(codings) if !response.body().is_end_stream() => {
            let details = format!(
                "the application answered with the transfer coding '{codings}', of which weft takes \"chunked\" alone: let it say how the content is coded in Content-Encoding"
            );
            Err(Refusal::new(Fact::AppMalformed, details))
        }
        _ => Ok(()),
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
fn broke_off(record: &mut Record, error: &hyper::Error) -> Passed {
    let details = super::app::said(error);
    let why = incomplete::trailers(&record.speaker(), &details);
    record.broke_off(details);
    Passed::Cut(why)
}

/// Ends the caller's half without an end, once it has what was sent.
async fn cut(mut send: SendStream, why: &HeaderMap) {
    // A caller that has left needs no reason.
    let _ = timeout(LAST_WORDS, send.break_off(why)).await;
    send.reset(Code::INTERNAL_ERROR);
}

fn left(record: &mut Record, error: &weft_transport::StreamError) -> Passed {
    record.left(error.to_string());
    Passed::Left
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
