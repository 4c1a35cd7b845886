//! The two halves of a request's stream, whatever carries the connection.

use std::future::Future;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use weft_h3::Code;

use crate::Carrier;
use crate::tcp::{RecvHalf, SendHalf};

/// What can go wrong on a stream.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    /// As HTTP/3 has it. What happens to a stream over TCP is told in the same words and codes (RFC 9114
    /// appendix A.4).
    #[error(transparent)]
    Stream(#[from] weft_h3::Error),
    /// The TCP connection ended, and with it what was under way on it.
    #[error("the TCP connection is closed: {reason}")]
    TcpClosed {
        /// Why.
        reason: String,
    },
}

impl StreamError {
    /// The peer reads our half no further.
    #[must_use]
    pub fn stopped(code: Code) -> Self {
        Self::Stream(weft_h3::Error::Stopped { code })
    }

    /// Whether the request was certainly not processed, so that sending it again elsewhere cannot repeat it.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Stream(error) => error.is_unprocessed(),
            Self::TcpClosed { .. } => false,
        }
    }

    /// Whether the whole connection is lost, not only one stream.
    #[must_use]
    pub fn is_connection(&self) -> bool {
        match self {
            Self::Stream(error) => error.is_connection(),
            Self::TcpClosed { .. } => true,
        }
    }

    /// The code that the error carries.
    #[must_use]
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Stream(error) => error.code(),
            Self::TcpClosed { .. } => None,
        }
    }
}

/// The half of a stream that we write: a client's request, a server's response.
///
/// **Ending is explicit.** Dropped before [`finish`](Self::finish), it resets the stream, so that a task that panics
/// or is cancelled never looks like a complete message. All methods are cancel safe.
///
/// Over TCP a reset ends both directions: HTTP/2 has no other (RFC 9113 §6.4).
#[derive(Debug)]
pub struct SendStream(Send);

#[derive(Debug)]
enum Send {
    Quic(weft_h3::SendStream),
    Tcp(SendHalf),
}

impl From<weft_h3::SendStream> for SendStream {
    fn from(stream: weft_h3::SendStream) -> Self {
        Self(Send::Quic(stream))
    }
}

impl From<SendHalf> for SendStream {
    fn from(half: SendHalf) -> Self {
        Self(Send::Tcp(half))
    }
}

impl SendStream {
    /// What carries it.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        match &self.0 {
            Send::Quic(_) => Carrier::Quic,
            Send::Tcp(_) => Carrier::Tcp,
        }
    }

    /// Server: tells a client that waits for it to send its content (100, RFC 9110 §10.1.1).
    ///
    /// # Errors
    /// After the final header. What the client did to the stream, and the connection's end.
    pub async fn send_continue(&mut self) -> Result<(), StreamError> {
        let mut interim = Response::new(());
        *interim.status_mut() = StatusCode::CONTINUE;
        match &mut self.0 {
            Send::Quic(stream) => Ok(stream.send_interim(&interim).await?),
            Send::Tcp(half) => half.send_interim(interim),
        }
    }

    /// Server: sends the final response header; content follows with [`send_data`](Self::send_data).
    ///
    /// # Errors
    /// As [`send_response_with`](Self::send_response_with).
    pub async fn send_response(&mut self, response: &Response<()>) -> Result<(), StreamError> {
        self.send_response_with(response, Bytes::new(), false).await
    }

    /// Server: sends the final response header and the first piece of content (may be empty), and with `end` also
    /// the end of the stream.
    ///
    /// # Errors
    /// A header that may not be sent: another response may follow. What the client did to the stream, and the
    /// connection's end.
    pub async fn send_response_with(
        &mut self,
        response: &Response<()>,
        content: Bytes,
        end: bool,
    ) -> Result<(), StreamError> {
        match &mut self.0 {
            Send::Quic(stream) => Ok(stream.send_response_with(response, content, end).await?),
            Send::Tcp(half) => half.send_response_with(response, content, end).await,
        }
    }

    /// Sends a piece of content, without copying it. Waits while the peer's flow control is shut.
    ///
    /// # Errors
    /// Content before a header or after the end, what the peer did to the stream, and the connection's end.
    pub async fn send_data(&mut self, content: Bytes) -> Result<(), StreamError> {
        match &mut self.0 {
            Send::Quic(stream) => Ok(stream.send_data(content).await?),
            Send::Tcp(half) => half.send_data(content).await,
        }
    }

    /// Sends trailers; [`finish`](Self::finish) must follow.
    ///
    /// # Errors
    /// As [`send_data`](Self::send_data); a CONNECT tunnel has none.
    pub async fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), StreamError> {
        match &mut self.0 {
            Send::Quic(stream) => Ok(stream.send_trailers(trailers).await?),
            Send::Tcp(half) => half.send_trailers(trailers).await,
        }
    }

    /// Ends our message; the peer may still be sending. Returns when everything is taken over, not when the peer has
    /// it.
    ///
    /// # Errors
    /// As [`send_data`](Self::send_data).
    pub async fn finish(&mut self) -> Result<(), StreamError> {
        match &mut self.0 {
            Send::Quic(stream) => Ok(stream.finish().await?),
            Send::Tcp(half) => half.finish().await,
        }
    }

    /// Server: gives up a response that cannot be completed, so that what was sent of it arrives. A reset alone may
    /// overtake it: QUIC discards with it what the peer has not read, and what has not left yet.
    ///
    /// Over QUIC the peer is told `why` in trailers behind which the stream does not end, and this returns when it stops
    /// reading. HTTP/2 knows no trailers but at a whole message's end (RFC 9113 §8.1): over TCP this returns when all has
    /// been written, and `why` is not told. A peer need not stop: bound the wait. A [`reset`](Self::reset) must follow;
    /// dropped, the stream is reset too.
    ///
    /// # Errors
    /// As [`send_data`](Self::send_data).
    pub async fn break_off(&mut self, why: &HeaderMap) -> Result<(), StreamError> {
        match &mut self.0 {
            Send::Quic(stream) => {
                stream.send_trailers(why).await?;
                stream.stopped().await?;
                Ok(())
            }
            Send::Tcp(half) => half.written().await,
        }
    }

    /// Gives the stream up with `code`; the peer drops what it has not read yet.
    pub fn reset(&mut self, code: Code) {
        match &mut self.0 {
            Send::Quic(stream) => stream.reset(code),
            Send::Tcp(half) => half.reset(code),
        }
    }

    /// Completes with a code when the peer stops reading our half; with `None`, over QUIC, when it has received all
    /// of it. Does not borrow the stream, so that it can be awaited beside a send.
    pub fn stopped(
        &self,
    ) -> impl Future<Output = Result<Option<Code>, StreamError>> + std::marker::Send + use<> {
        let stopped = match &self.0 {
            Send::Quic(stream) => (Some(stream.stopped()), None),
            Send::Tcp(half) => (None, Some(half.stopped())),
        };
        async move {
            match stopped {
                (Some(quic), _) => Ok(quic.await?),
                (None, Some(tcp)) => tcp.await,
                (None, None) => unreachable!("one of the two is there"),
            }
        }
    }
}

/// The half of a stream that we read: a server's request body, a client's response.
///
/// Flow control holds the peer back while it is not read. All methods are cancel safe. Dropped before its end, it
/// tells the peer to stop sending.
#[derive(Debug)]
pub struct RecvStream(Recv);

#[derive(Debug)]
#[allow(
    clippy::large_enum_variant,
    reason = "the large one is the usual one: a box would cost each request over QUIC an allocation"
)]
enum Recv {
    Quic(weft_h3::RecvStream),
    Tcp(RecvHalf),
}

impl From<weft_h3::RecvStream> for RecvStream {
    fn from(stream: weft_h3::RecvStream) -> Self {
        Self(Recv::Quic(stream))
    }
}

impl From<RecvHalf> for RecvStream {
    fn from(half: RecvHalf) -> Self {
        Self(Recv::Tcp(half))
    }
}

impl RecvStream {
    /// What carries it.
    #[must_use]
    pub fn carrier(&self) -> Carrier {
        match &self.0 {
            Recv::Quic(_) => Carrier::Quic,
            Recv::Tcp(_) => Carrier::Tcp,
        }
    }

    /// Client: the final response header. Interim responses are passed over.
    ///
    /// # Errors
    /// What the peer did to the stream, a malformed message, and the connection's end.
    pub async fn response(&mut self) -> Result<Response<()>, StreamError> {
        match &mut self.0 {
            Recv::Quic(stream) => Ok(stream.response().await?),
            Recv::Tcp(half) => half.response().await,
        }
    }

    /// Client: the final response header, or `None` when an interim one comes first.
    ///
    /// # Errors
    /// As [`response`](Self::response).
    pub async fn response_or_interim(&mut self) -> Result<Option<Response<()>>, StreamError> {
        match &mut self.0 {
            Recv::Quic(stream) => {
                let head = stream.next_head().await?;
                Ok((!head.status().is_informational()).then_some(head))
            }
            Recv::Tcp(half) => half.response_or_interim().await,
        }
    }

    /// The next piece of content, of any size, as it arrived; `None` at its end. A clean end is the only `None`.
    ///
    /// # Errors
    /// As [`response`](Self::response).
    pub async fn data(&mut self) -> Result<Option<Bytes>, StreamError> {
        std::future::poll_fn(|cx| self.poll_data(cx)).await
    }

    /// As [`data`](Self::data), for implementations of `http_body::Body` and the like.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        match &mut self.0 {
            Recv::Quic(stream) => stream.poll_data(cx).map_err(StreamError::from),
            Recv::Tcp(half) => half.poll_data(cx),
        }
    }

    /// Fills `pieces` from the front with what is there, at least one, and tells how many; 0 at the end.
    ///
    /// # Errors
    /// As [`data`](Self::data); pieces that came before an error are given first.
    pub async fn data_vectored(&mut self, pieces: &mut [Bytes]) -> Result<usize, StreamError> {
        let count = weft_h3::gather(pieces, |cx| self.poll_data(cx)).await?;
        if let Recv::Quic(stream) = &self.0 {
            stream.has_more_in_hand();
        }
        Ok(count)
    }

    /// The trailers, once the content is read; what of it was not read is thrown away. `None` when there are none.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, StreamError> {
        while self.data().await?.is_some() {}
        Ok(match &mut self.0 {
            Recv::Quic(stream) => stream.take_trailers(),
            Recv::Tcp(half) => half.take_trailers(),
        })
    }

    /// The trailers as soon as they are here; they stay. Over QUIC they may come before the end of the stream, and without
    /// one (see [`SendStream::break_off`]).
    #[must_use]
    pub fn trailers_so_far(&self) -> Option<&HeaderMap> {
        match &self.0 {
            Recv::Quic(stream) => stream.trailers_so_far(),
            Recv::Tcp(half) => half.trailers_so_far(),
        }
    }

    /// Whether the end is already known without waiting: no content is left, and no trailers.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match &self.0 {
            Recv::Quic(stream) => stream.is_end(),
            Recv::Tcp(half) => half.is_end(),
        }
    }

    /// Tells the peer that we read no further, and why.
    pub fn stop(&mut self, code: Code) {
        match &mut self.0 {
            Recv::Quic(stream) => stream.stop(code),
            Recv::Tcp(half) => half.stop(code),
        }
    }
}
