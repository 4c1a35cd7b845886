//! A request's content, and what becomes of the rest of it when the answer came first.
//!
//! A service may answer before it has read all (a 413, a 403), and weft may. HTTP/1.1 has no way to stop a client in
//! the midst of its request but to close the connection; closing it while bytes are unread, or still to come, makes
//! the kernel reset it, and the client may lose the answer that it has not read yet (RFC 9112 §9.6).

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;
use weft_env::Stream;

/// An application that has more to send does so: it is on this machine.
const SILENCE: Duration = Duration::from_secs(5);
/// The longest that a connection is kept only to be read to its end. It holds one of the listener's places.
const LONGEST: Duration = Duration::from_secs(30);
/// Bytes thrown away at most: many clients read no answer before they have sent all.
const DRAINED: usize = 256 << 20;

/// Whether the last request of a connection has content that nobody has taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Unread(Arc<AtomicBool>);

impl Unread {
    pub(super) fn is_left(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, left: bool) {
        self.0.store(left, Ordering::Relaxed);
    }
}

/// A request's body that tells when it has been taken to its end.
#[derive(Debug)]
pub(crate) struct Content {
    body: Incoming,
    /// What was taken of it to see how much is there.
    first: Option<Bytes>,
    unread: Unread,
}

impl Content {
    pub(super) fn new(body: Incoming, unread: Unread) -> Self {
        unread.set(!body.is_end_stream());
        Self {
            body,
            first: None,
            unread,
        }
    }

    /// Puts back what was taken.
    pub(super) fn put_back(&mut self, first: Bytes) {
        self.first = (!first.is_empty()).then_some(first);
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(Frame::data(first))));
        }
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.unread.set(false);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.first.is_none() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = self.body.size_hint();
        let first = self.first.as_ref().map_or(0, |first| first.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + first);
        }
        hint.set_lower(hint.lower() + first);
        hint
    }
}

/// Says that the answer has ended, and closes when the application has read it: when it closes too, or sends nothing
/// more, within bounds.
pub(super) async fn linger(mut stream: Stream) {
    let read_all = async {
        // Fails where hyper has done it and the application is gone; reading says the same.
        let _ = stream.shutdown().await;
        let mut rest = vec![0; 16 * 1024];
        let mut drained = 0;
        while drained < DRAINED {
            match timeout(SILENCE, stream.read(&mut rest)).await {
                Ok(Ok(read)) if read > 0 => drained += read,
                _ => break,
            }
        }
    };
    let _ = timeout(LONGEST, read_all).await;
}
