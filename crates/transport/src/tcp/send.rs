//! Our half of a stream over TCP, with the promises of [`weft_h3::SendStream`].

use std::future::{Future, poll_fn};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response, Version};
use tokio::sync::oneshot;
use weft_h3::Code;

use super::codes::unsendable;
use super::shared::{Half, Shared};
use crate::StreamError;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Content,
    Ended,
}

/// The content of an empty frame, which tells when it is gone.
struct Mark(#[allow(dead_code, reason = "it tells by being dropped")] oneshot::Sender<()>);

impl AsRef<[u8]> for Mark {
    fn as_ref(&self) -> &[u8] {
        &[]
    }
}

/// Sends a message; dropped before its end, it resets the stream.
#[derive(Debug)]
pub(crate) struct SendHalf {
    stream: Arc<Shared>,
    /// Taken over, and not yet taken by flow control.
    out: Bytes,
    stage: Stage,
    /// The request's method is CONNECT.
    tunnel: bool,
    /// What a drop resets the stream with.
    drop_code: Code,
}

impl SendHalf {
    /// A client's, behind its header.
    pub(super) fn request(stream: Arc<Shared>, tunnel: bool, ended: bool) -> Self {
        Self {
            stream,
            out: Bytes::new(),
            stage: if ended { Stage::Ended } else { Stage::Content },
            tunnel,
            drop_code: Code::REQUEST_CANCELLED,
        }
    }

    /// A server's, before its response.
    pub(super) fn response(stream: Arc<Shared>, tunnel: bool) -> Self {
        Self {
            stream,
            out: Bytes::new(),
            stage: Stage::Head,
            tunnel,
            drop_code: Code::INTERNAL_ERROR,
        }
    }

    pub(crate) fn send_interim(&mut self, interim: Response<()>) -> Result<(), StreamError> {
        let Half::Head(sender) = &mut *self.stream.lock() else {
            return Err(unsendable("an interim response after the final one"));
        };
        sender
            .send_informational(interim)
            .map_err(|error| self.stream.error(&error))
    }

    pub(crate) async fn send_response_with(
        &mut self,
        response: &Response<()>,
        content: Bytes,
        end: bool,
    ) -> Result<(), StreamError> {
        if response.status().is_informational() {
            return Err(unsendable("a final response has no status of 1xx"));
        }
        if self.stage != Stage::Head {
            return Err(unsendable("a second final response"));
        }
        let mut head = response.clone();
        *head.version_mut() = Version::HTTP_2;
        let at_once = end && content.is_empty();
        {
            let mut half = self.stream.lock();
            let Half::Head(sender) = &mut *half else {
                return Err(unsendable("a second final response"));
            };
            let sent = sender.send_response(head, at_once);
            *half = Half::Body(sent.map_err(|error| self.stream.error(&error))?);
        }
        // A CONNECT that is refused has an ordinary response.
        self.tunnel &= response.status().is_success();
        self.stage = if at_once {
            Stage::Ended
        } else {
            Stage::Content
        };
        self.out = content;
        match end && !at_once {
            true => self.finish().await,
            false => self.flush(false).await,
        }
    }

    pub(crate) async fn send_data(&mut self, content: Bytes) -> Result<(), StreamError> {
        self.expect_content()?;
        self.flush(false).await?;
        self.out = content;
        self.flush(false).await
    }

    pub(super) async fn send_last(&mut self, content: Bytes) -> Result<(), StreamError> {
        self.out = content;
        self.finish().await
    }

    pub(crate) async fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), StreamError> {
        self.expect_content()?;
        if self.tunnel {
            return Err(unsendable("a CONNECT tunnel has no trailers"));
        }
        self.flush(false).await?;
        let Half::Body(body) = &mut *self.stream.lock() else {
            return Err(unsendable("trailers before the header"));
        };
        body.send_trailers(trailers.clone())
            .map_err(|error| self.stream.error(&error))?;
        self.stage = Stage::Ended;
        Ok(())
    }

    pub(crate) async fn finish(&mut self) -> Result<(), StreamError> {
        match self.stage {
            Stage::Head => return Err(unsendable("the stream ends before a response header")),
            Stage::Ended => return Ok(()),
            Stage::Content => {}
        }
        self.flush(true).await?;
        self.stage = Stage::Ended;
        Ok(())
    }

    /// Completes when all that was handed over is on its way to the socket, or thrown away with the stream. `h2` does
    /// not tell; but it lets go of a frame once it has written it, also of an empty one behind the others.
    pub(crate) async fn written(&mut self) -> Result<(), StreamError> {
        self.expect_content()?;
        self.flush(false).await?;
        let (mark, gone) = oneshot::channel();
        {
            let Half::Body(body) = &mut *self.stream.lock() else {
                return Err(unsendable("content before the header"));
            };
            body.send_data(Bytes::from_owner(Mark(mark)), false)
                .map_err(|error| self.stream.error(&error))?;
        }
        // Nothing is ever sent: it resolves when the frame is dropped.
        let _ = gone.await;
        Ok(())
    }

    pub(crate) fn reset(&mut self, code: Code) {
        self.stage = Stage::Ended;
        self.out = Bytes::new();
        self.stream.reset(code);
    }

    pub(crate) fn stopped(
        &self,
    ) -> impl Future<Output = Result<Option<Code>, StreamError>> + Send + use<> {
        Arc::clone(&self.stream).stopped()
    }

    fn expect_content(&self) -> Result<(), StreamError> {
        match self.stage {
            Stage::Content => Ok(()),
            Stage::Head | Stage::Ended => {
                Err(unsendable("content before the header or after the end"))
            }
        }
    }

    async fn flush(&mut self, last: bool) -> Result<(), StreamError> {
        if self.out.is_empty() && !last {
            return Ok(());
        }
        poll_fn(|cx| self.stream.poll_send(cx, &mut self.out, last)).await
    }
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if self.stage != Stage::Ended {
            self.stream.wire.abandon();
            // What the peer has must not look like the whole.
            self.reset(self.drop_code);
        }
    }
}
