//! The peer's half of a stream over TCP, with the promises of [`weft_h3::RecvStream`].

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use http::{HeaderMap, Response};
use tokio::task::coop::poll_proceed;
use weft_h3::{Code, Error};

use super::shared::Shared;
use crate::StreamError;

#[derive(Debug)]
enum Source {
    /// A client's, before the response header.
    Head(ResponseFuture),
    Body(h2::RecvStream),
    /// The peer's message is complete.
    Clean,
    /// We read no further.
    Stopped,
    Failed(Box<StreamError>),
}

/// Reads a message; dropped before its end by a client, it resets the stream.
#[derive(Debug)]
pub(crate) struct RecvHalf {
    stream: Arc<Shared>,
    source: Source,
    trailers: Option<Box<HeaderMap>>,
}

impl RecvHalf {
    pub(super) fn response_to(stream: Arc<Shared>, head: ResponseFuture) -> Self {
        Self {
            stream,
            source: Source::Head(head),
            trailers: None,
        }
    }

    pub(super) fn request(stream: Arc<Shared>, body: h2::RecvStream) -> Self {
        Self {
            stream,
            source: Source::Body(body),
            trailers: None,
        }
    }

    pub(crate) async fn response(&mut self) -> Result<Response<()>, StreamError> {
        loop {
            if let Some(response) = self.response_or_interim().await? {
                return Ok(response);
            }
        }
    }

    pub(crate) async fn response_or_interim(
        &mut self,
    ) -> Result<Option<Response<()>>, StreamError> {
        let head = poll_fn(|cx| match &mut self.source {
            Source::Head(head) => poll_head(head, cx).map_err(Some),
            _ => Poll::Ready(Err(None)),
        });
        match head.await {
            Ok(Some(response)) => {
                let (parts, body) = response.into_parts();
                self.source = Source::Body(body);
                Ok(Some(Response::from_parts(parts, ())))
            }
            Ok(None) => Ok(None),
            Err(Some(error)) => Err(self.fail(&error)),
            Err(None) => Err(self.unreadable("there is no header left to read")),
        }
    }

    pub(crate) fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        // A peer that sends without a pause must not keep the thread to itself.
        let turn = ready!(poll_proceed(cx));
        loop {
            let body = match &mut self.source {
                Source::Body(body) => body,
                Source::Clean => return Poll::Ready(Ok(None)),
                _ => {
                    return Poll::Ready(
                        Err(self.unreadable("the header comes before the content")),
                    );
                }
            };
            let event = match ready!(body.poll_data(cx)) {
                Some(Ok(data)) => {
                    // It fails only on a stream that is gone.
                    let _ = body.flow_control().release_capacity(data.len());
                    Ok(Some(data))
                }
                Some(Err(error)) => Err(error),
                None => match ready!(body.poll_trailers(cx)) {
                    Ok(trailers) => {
                        self.trailers = trailers.map(Box::new);
                        Ok(None)
                    }
                    Err(error) => Err(error),
                },
            };
            turn.made_progress();
            match event {
                // A frame may be empty.
                Ok(Some(data)) if data.is_empty() => {}
                Ok(Some(data)) => return Poll::Ready(Ok(Some(data))),
                Ok(None) => {
                    self.source = Source::Clean;
                    return Poll::Ready(Ok(None));
                }
                Err(error) => return Poll::Ready(Err(self.fail(&error))),
            }
        }
    }

    pub(crate) fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    pub(crate) fn trailers_so_far(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    pub(crate) fn is_end(&self) -> bool {
        match &self.source {
            Source::Clean => self.trailers.is_none(),
            Source::Body(body) => body.is_end_stream(),
            _ => false,
        }
    }

    /// Reads no further. HTTP/2 cannot say so of one direction: a server's answer goes on where it may, and the stream
    /// is reset behind it (RFC 9113 §8.1, by `h2`).
    pub(crate) fn stop(&mut self, code: Code) {
        let open = match &self.source {
            Source::Head(_) => true,
            Source::Body(body) => !body.is_end_stream(),
            Source::Clean | Source::Stopped | Source::Failed(_) => return,
        };
        self.source = Source::Stopped;
        if open && (self.stream.is_client || code != Code::NO_ERROR) {
            self.stream.reset(code);
        }
    }

    fn fail(&mut self, error: &h2::Error) -> StreamError {
        let error = self.stream.error(error);
        self.source = Source::Failed(Box::new(error.clone()));
        error
    }

    fn unreadable(&self, rule: &'static str) -> StreamError {
        match &self.source {
            Source::Failed(error) => (**error).clone(),
            Source::Stopped => Error::Unreadable {
                rule: "the stream was stopped by its reader",
            }
            .into(),
            _ => Error::Unreadable { rule }.into(),
        }
    }
}

/// The final header; `None` for an interim one.
fn poll_head(
    head: &mut ResponseFuture,
    cx: &mut Context<'_>,
) -> Poll<Result<Option<Response<h2::RecvStream>>, h2::Error>> {
    if let Poll::Ready(Some(interim)) = head.poll_informational(cx) {
        return Poll::Ready(interim.map(|_| None));
    }
    Pin::new(head).poll(cx).map_ok(Some)
}

impl Drop for RecvHalf {
    fn drop(&mut self) {
        self.stop(if self.stream.is_client {
            Code::REQUEST_CANCELLED
        } else {
            Code::NO_ERROR
        });
    }
}
