//! What the application sent is not HTTP: the answer that says so.
//!
//! hyper answers such bytes by itself, with a bare status that names neither who refused nor why, and it
//! offers no hook. So the wire beneath it holds that bare answer back; when the connection has ended,
//! hyper's verdict tells whether it was such an answer, and weft's own goes out in its place.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;
use weft_env::Stream;
use weft_telemetry::Protocol;

use super::content::{Unread, linger};
use super::reply::{BrokenReply, Reply};
use super::{MAX_FIELDS, MAX_HEAD};
use crate::node::Node;
use crate::record::{Opening, Record};
use crate::respond::{Fact, Refusal};

/// hyper's answers to what it cannot parse, byte for byte (a test holds it to them).
const BARE: [&[u8]; 2] = [
    b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n",
];
/// First byte of a TLS record that carries a handshake (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 0x16;
/// How long the application may take to make room for the answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Exchanges of one connection that are under way.
#[derive(Debug, Clone, Default)]
pub(super) struct Open(Arc<AtomicUsize>);

/// One exchange, until its response's body is gone.
#[derive(Debug)]
pub(super) struct Exchange(Open);

impl Open {
    pub(super) fn begin(&self) -> Exchange {
        self.0.fetch_add(1, Ordering::Relaxed);
        Exchange(self.clone())
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A response's body that counts as an exchange under way.
pub(super) struct Counted {
    reply: Reply,
    _exchange: Exchange,
}

impl Counted {
    pub(super) fn new(reply: Reply, exchange: Exchange) -> Self {
        Self {
            reply,
            _exchange: exchange,
        }
    }
}

impl Body for Counted {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        Pin::new(&mut self.reply).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.reply.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.reply.size_hint()
    }
}

/// The application's connection beneath hyper.
#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    open: Open,
    /// A bare answer that hyper believes sent.
    held: Option<&'static [u8]>,
    /// The connection's first byte.
    first: Option<u8>,
}

impl Wire {
    pub(super) fn new(stream: Stream, open: Open) -> Self {
        Self {
            stream,
            open,
            held: None,
            first: None,
        }
    }

    pub(super) fn into_stream(self) -> Stream {
        self.stream
    }

    /// The bare answer that ends `buf`, if hyper can have made it: with an exchange under way, the bytes
    /// are that one's.
    fn bare(&self, buf: &[u8]) -> Option<&'static [u8]> {
        if self.open.0.load(Ordering::Relaxed) > 0 {
            return None;
        }
        BARE.into_iter().find(|bare| buf.ends_with(bare))
    }

    /// Sends what was held back and turned out to be somebody's.
    fn poll_release(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(held) = self.held {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let rest = &held[written..];
            self.held = (!rest.is_empty()).then_some(rest);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.first.is_none() {
            self.first = buf.filled().get(before).copied();
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_release(cx))?;
        let Some(bare) = self.bare(buf) else {
            return Pin::new(&mut self.stream).poll_write(cx, buf);
        };
        let before = buf.len() - bare.len();
        if before > 0 {
            // The end of the last response: hyper comes back with the rest.
            return Pin::new(&mut self.stream).poll_write(cx, &buf[..before]);
        }
        self.held = Some(bare);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [one] = bufs {
            return self.poll_write(cx, one);
        }
        ready!(self.poll_release(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_some() {
            // `end` does both, once hyper has said what it made of the bytes.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Ends a connection that hyper is done with: `error` is what it could not parse, if that is why. `begun` is whether there
/// was a part of a request.
pub(super) async fn end(
    node: &Node,
    mut wire: Wire,
    error: Option<&hyper::Error>,
    begun: bool,
    unread: &Unread,
) {
    let held = wire.held.take();
    if begun && error.is_some_and(hyper::Error::is_timeout) {
        return say(wire, &refuse(node, &head_timeout(node))).await;
    }
    let answer = match (error.filter(|error| error.is_parse()), held) {
        (Some(error), Some(_)) => refuse(node, &refusal(error, wire.first)),
        // hyper says nothing to a client that begins with HTTP/2's preface.
        (Some(error), None) if error.to_string().contains("HTTP2 preface") => {
            let text = "weft takes HTTP/1.1 on this port, not HTTP/2";
            let refusal = Refusal::new(Fact::BadRequest, text);
            record(node).refused(&refusal);
            http2_refusal(text)
        }
        (_, Some(held)) => held.to_vec(),
        (_, None) if unread.is_left() => return linger(wire.stream).await,
        (_, None) => return,
    };
    say(wire, &answer).await;
}

/// Sends a connection's last answer.
async fn say(mut wire: Wire, answer: &[u8]) {
    // The application may be gone, or not read: nothing is lost then but this answer.
    if let Ok(Ok(())) = timeout(PATIENCE, wire.stream.write_all(answer)).await {
        linger(wire.stream).await;
    }
}

/// What is logged and counted of a request that has no method and no target.
fn record(node: &Node) -> Record {
    let id = HeaderValue::try_from(format!("{:032x}", node.dice.id()))
        .expect("hexadecimal digits are visible ASCII");
    Record::open(
        Opening {
            telemetry: &node.telemetry,
            face: &node.outbound,
            protocol: Protocol::Http,
            request_id: id,
            method: Method::from_bytes(b"-").expect("a hyphen is a token"),
            target: Uri::default(),
            revision: node.running.load().as_ref().map_or(0, |r| r.revision()),
        },
        &node.nothing,
    )
}

/// The answer to what is not a request.
fn refuse(node: &Node, refusal: &Refusal) -> Vec<u8> {
    let mut record = record(node);
    record.refused(refusal);
    let (head, text) = record.speaker().answer(refusal);
    message(&head, &text)
}

fn head_timeout(node: &Node) -> Refusal {
    let details = format!(
        "the request's head was not complete after {:?}: send it in one piece",
        node.head_timeout
    );
    Refusal::new(Fact::HeadTimeout, details)
}

fn refusal(error: &hyper::Error, first: Option<u8>) -> Refusal {
    if first == Some(TLS_HANDSHAKE) {
        return Refusal::new(
            Fact::BadRequest,
            "this port takes plain HTTP/1.1 and the application began with TLS: use http://, the mesh encrypts",
        );
    }
    if error.is_parse_too_large() {
        let details = format!(
            "the request's head is larger than {MAX_HEAD} bytes or has more than {MAX_FIELDS} fields"
        );
        return Refusal::new(Fact::HeadTooLarge, details);
    }
    Refusal::new(
        Fact::BadRequest,
        format!("this is not a request of HTTP/1.1: {error}"),
    )
}

/// A response as it goes over the wire.
fn message(head: &Response<()>, text: &str) -> Vec<u8> {
    let status = head.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let mut out = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
    for (name, value) in head.headers() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(text.as_bytes());
    out
}

/// HTTP/2's "no streams here, use HTTP/1.1" (RFC 9113 §6.5, §6.8, §7): an empty SETTINGS frame, then GOAWAY
/// with `HTTP_1_1_REQUIRED` and a text for whoever looks at the bytes.
fn http2_refusal(text: &str) -> Vec<u8> {
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const HTTP_1_1_REQUIRED: u32 = 0xd;
    let length = u32::try_from(8 + text.len()).expect("a sentence is short");
    let mut out = SETTINGS.to_vec();
    out.extend_from_slice(&length.to_be_bytes()[1..]);
    out.extend_from_slice(&[7, 0, 0, 0, 0, 0]);
    out.extend_from_slice(&0_u32.to_be_bytes());
    out.extend_from_slice(&HTTP_1_1_REQUIRED.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    out
}
