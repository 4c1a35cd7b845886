//! The response on its way from the mesh to the own application.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};
use weft_transport::RecvStream;

use crate::headers::sanitise_trailers;
use crate::inbound::app::AbortOnDrop;
use crate::incomplete;
use crate::node::Node;
use crate::record::Record;
use crate::respond::shown;
use crate::running::{Instance, Pending};

/// A response's body.
pub(crate) enum Reply {
    /// Weft's own sentence, or nothing.
    Text(Option<Bytes>),
    /// It comes from the mesh.
    Mesh(Box<MeshReply>),
}

/// A body that comes from the mesh. It keeps all that the exchange needs to its end.
pub(crate) struct MeshReply {
    node: Arc<Node>,
    recv: RecvStream,
    record: Record,
    instance: Arc<Instance>,
    _pending: Pending,
    /// The request's body, if it is still being sent: ends with the response.
    upload: Option<AbortOnDrop>,
    deadline: Option<Pin<Box<Sleep>>>,
    /// Bytes still to come, where the head said how many: hyper asks for nothing after the last of them.
    left: Option<u64>,
    trailed: bool,
    /// It has broken off, and hyper is not told yet.
    broken: Option<BrokenReply>,
}

/// What a [`MeshReply`] is made of.
pub(crate) struct Arriving {
    pub(crate) node: Arc<Node>,
    pub(crate) recv: RecvStream,
    pub(crate) record: Record,
    pub(crate) instance: Arc<Instance>,
    pub(crate) pending: Pending,
    pub(crate) upload: Option<AbortOnDrop>,
    pub(crate) deadline: Option<Instant>,
    /// `content-length` of the response.
    pub(crate) length: Option<u64>,
}

/// The body broke off. hyper then breaks the connection to the application: never a clean end.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BrokenReply(String);

impl Reply {
    pub(crate) fn text(text: String) -> Self {
        Self::Text(Some(Bytes::from(text)))
    }

    /// Whether all of it is here, so that nothing of the exchange goes on.
    pub(super) fn is_whole(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// The body of a response whose head has arrived. `expected` is whether it has one.
    pub(crate) fn arriving(mut arriving: Arriving, expected: bool) -> Self {
        if !expected || arriving.recv.is_end() {
            arriving.record.ended();
            return Self::Text(None);
        }
        Self::Mesh(Box::new(MeshReply {
            deadline: arriving.deadline.map(|at| Box::pin(sleep_until(at))),
            node: arriving.node,
            recv: arriving.recv,
            record: arriving.record,
            instance: arriving.instance,
            _pending: arriving.pending,
            upload: arriving.upload,
            left: arriving.length,
            trailed: false,
            broken: None,
        }))
    }
}

impl MeshReply {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        if let Some(broken) = self.broken.take() {
            return Poll::Ready(Some(Err(broken)));
        }
        match self.recv.poll_data(cx) {
            Poll::Ready(Ok(Some(data))) => {
                self.record.took(data.len());
                if let Some(left) = &mut self.left {
                    *left = left.saturating_sub(data.len() as u64);
                }
                Poll::Ready(Some(Ok(Frame::data(data))))
            }
            Poll::Ready(Ok(None)) => self.poll_trailers(cx),
            Poll::Ready(Err(error)) => self.broke(cx, format!("the response broke off: {error}")),
            Poll::Pending => {
                if let Some(why) = self.cut_by_peer() {
                    return self.broke(cx, why);
                }
                if let Some(deadline) = &mut self.deadline {
                    ready!(deadline.as_mut().poll(cx));
                    let reason = "the response took longer than the route allows";
                    self.record.broke_off(reason);
                    return self.tell_later(cx, reason.to_owned());
                }
                Poll::Pending
            }
        }
    }

    fn poll_trailers(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        if let Some(why) = self.cut_by_peer() {
            return self.broke(cx, why);
        }
        if !std::mem::replace(&mut self.trailed, true) {
            // The content has ended, so this is ready at once.
            let trailers = pin!(self.recv.trailers()).poll(cx);
            match ready!(trailers) {
                Ok(Some(mut trailers)) => {
                    sanitise_trailers(&mut trailers);
                    self.record.ended();
                    return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
                }
                Ok(None) => {}
                Err(error) => return self.broke(cx, format!("the response broke off: {error}")),
            }
        }
        self.record.ended();
        Poll::Ready(None)
    }

    /// The peer's words, if it has said in trailers that its application broke off. The stream has no end then, and what
    /// the peer says is no trailer of the application.
    fn cut_by_peer(&self) -> Option<String> {
        let said = incomplete::said(self.recv.trailers_so_far()?)?;
        Some(format!(
            "the response broke off: {}",
            shown(said.as_bytes())
        ))
    }

    fn broke(
        &mut self,
        cx: &Context<'_>,
        reason: String,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        self.instance.failed(self.node.uptime());
        self.record.broke_off(reason.as_str());
        self.tell_later(cx, reason)
    }

    /// hyper throws away what it has not written when a body breaks off, the head among it, and writes when there is
    /// nothing to read.
    fn tell_later(
        &mut self,
        cx: &Context<'_>,
        reason: String,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        self.broken = Some(BrokenReply(reason));
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Drop for MeshReply {
    fn drop(&mut self) {
        // hyper does not poll a body again that says it is at its end, or that has given all it promised.
        if self.recv.is_end() || self.left == Some(0) {
            self.record.ended();
        }
        drop(self.upload.take());
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = BrokenReply;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenReply>>> {
        match self.get_mut() {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Mesh(reply) => reply.poll(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Text(text) => text.is_none(),
            Self::Mesh(reply) => reply.recv.is_end(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => {
                SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64))
            }
            // A content-length field, if there was one, says it to hyper.
            Self::Mesh(_) => SizeHint::default(),
        }
    }
}
