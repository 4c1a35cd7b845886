//! The body of a request on its way from the mesh to the application.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
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
