//! The body of a request on its way from the mesh to the application.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Method;
use http::header::{self, HeaderMap};
use http_body::{Body, Frame, SizeHint};
use weft_transport::{RecvStream, StreamError};

use crate::headers::sanitise_trailers;

/// A request's body.
pub(crate) enum AppBody {
    /// There is none.
    Empty,
    /// It comes from the mesh.
    Mesh(Box<MeshBody>),
}

/// What arrives on the stream, counted.
pub(crate) struct MeshBody {
    /// A piece that was taken to see whether there is any.
    pub(crate) first: Option<Bytes>,
    pub(crate) recv: RecvStream,
    pub(crate) sent: Arc<AtomicU64>,
    pub(crate) trailed: bool,
}

impl MeshBody {
    pub(crate) fn new(first: Option<Bytes>, recv: RecvStream, sent: Arc<AtomicU64>) -> Self {
        Self {
            first,
            recv,
            sent,
            trailed: false,
        }
    }
}

impl AppBody {
    /// A body whose first piece may have been taken already.
    pub(super) fn mesh(first: Option<Bytes>, recv: RecvStream, sent: &Arc<AtomicU64>) -> Self {
        Self::Mesh(Box::new(MeshBody::new(first, recv, Arc::clone(sent))))
    }
}

impl Body for AppBody {
    type Data = Bytes;
    type Error = StreamError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, StreamError>>> {
        let Self::Mesh(body) = self.get_mut() else {
            return Poll::Ready(None);
        };
        let data = match body.first.take() {
            Some(first) => Some(first),
            None => match ready!(body.recv.poll_data(cx)) {
                Ok(data) => data,
                Err(error) => return Poll::Ready(Some(Err(error))),
            },
        };
        if let Some(data) = data {
            body.sent.fetch_add(data.len() as u64, Ordering::Relaxed);
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        if std::mem::replace(&mut body.trailed, true) {
            return Poll::Ready(None);
        }
        // The content has ended, so this is ready at once.
        match ready!(pin!(body.recv.trailers()).poll(cx)) {
            Ok(Some(mut trailers)) => {
                sanitise_trailers(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            Ok(None) => Poll::Ready(None),
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Mesh(body) => body.first.is_none() && body.recv.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            // A content-length field, if there was one, says it to hyper.
            Self::Mesh(_) => SizeHint::default(),
        }
    }
}

/// How a request's body begins.
pub(super) enum Start {
    /// There is none.
    None,
    /// Nothing of it is here.
    Later,
    /// This is here.
    Piece(Bytes),
}

/// Whether the request has a body. HTTP/3 says so by ending the stream, HTTP/1.1 must say so in the head:
/// where the head does not tell and the method usually has none, the first bytes or the end decide.
pub(super) async fn first_piece(
    method: &Method,
    headers: &HeaderMap,
    recv: &mut RecvStream,
) -> Result<Start, StreamError> {
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
        match now(pin!(recv.data())).await {
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
async fn now<F: Future>(mut future: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}
