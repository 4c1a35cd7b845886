//! Our half of a request stream.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::{HeaderMap, Response};
use quinn::{StoppedError, WriteError};

use crate::core::credit::Allowance;
use crate::core::outgoing;
use crate::priority::Place;
use crate::shared::{self, Stream};
use crate::{Code, Error};

/// How far our message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// A server's, before its final response header.
    Head,
    Content,
    /// Trailers are sent; only the end may follow.
    Trailed,
    Ended,
}

/// The half of a request stream that we write: a client's request, a server's response.
///
/// **Ending is explicit.** A stream that is dropped before [`finish`](Self::finish) is reset
/// (`H3_REQUEST_CANCELLED` by a client, `H3_INTERNAL_ERROR` by a server), so a task that panics or is
/// cancelled never looks like a complete message to the peer.
///
/// All methods are cancel safe: what was handed over is kept and goes out before anything later does.
#[derive(Debug)]
pub struct SendStream {
    inner: quinn::SendStream,
    stream: Arc<Stream>,
    /// Taken over but not yet accepted by QUIC's flow control: a frame's head, and its payload.
    out: [Bytes; 2],
    allowance: Allowance,
    place: Place,
    stage: Stage,
    /// The request's method is CONNECT, extended or not: no trailers.
    tunnel: bool,
    /// What a drop resets the stream with.
    drop_code: Code,
}

impl SendStream {
    /// A client's, whose header is `head` and then perhaps a piece of content.
    pub(crate) fn request(
        inner: quinn::SendStream,
        stream: Arc<Stream>,
        out: [Bytes; 2],
        tunnel: bool,
    ) -> Self {
        Self {
            inner,
            stream,
            out,
            allowance: Allowance::default(),
            place: Place::default(),
            stage: Stage::Content,
            tunnel,
            drop_code: Code::REQUEST_CANCELLED,
        }
    }

    /// A server's, before the request was read: dropping it rejects the request.
    pub(crate) fn pending(inner: quinn::SendStream, stream: Arc<Stream>) -> Self {
        Self {
            inner,
            stream,
            out: [const { Bytes::new() }; 2],
            allowance: Allowance::default(),
            place: Place::default(),
            stage: Stage::Head,
            tunnel: false,
            drop_code: Code::REQUEST_REJECTED,
        }
    }

    /// The request reached the server's handler: from now on it counts as processed.
    pub(crate) fn accepted(&mut self, tunnel: bool) {
        self.tunnel = tunnel;
        self.drop_code = Code::INTERNAL_ERROR;
    }

    /// Server: sends an interim response, 1xx but not 101.
    ///
    /// # Errors
    /// As [`send_response_with`](Self::send_response_with).
    pub async fn send_interim(&mut self, response: &Response<()>) -> Result<(), Error> {
        if !response.status().is_informational() {
            return Err(unsendable("an interim response has a status of 1xx"));
        }
        self.expect(Stage::Head, "an interim response after the final one")?;
        self.flush().await?;
        self.out[0] = outgoing::response(response, self.stream.shared.peer_limit())?.into();
        self.flush().await
    }

    /// Server: sends the final response header; content follows with [`send_data`](Self::send_data).
    ///
    /// # Errors
    /// As [`send_response_with`](Self::send_response_with).
    pub async fn send_response(&mut self, response: &Response<()>) -> Result<(), Error> {
        self.send_response_with(response, Bytes::new(), false).await
    }

    /// Server: sends the final response header and the first piece of content (may be empty) in one write,
    /// and with `end` also the end of the stream. The content is not copied.
    ///
    /// # Errors
    /// [`Error::Unsendable`] and [`Error::HeaderTooBig`] before anything is sent: another response may
    /// follow. [`Error::Stopped`] when the client does not read any more, and the connection's end.
    pub async fn send_response_with(
        &mut self,
        response: &Response<()>,
        content: Bytes,
        end: bool,
    ) -> Result<(), Error> {
        if response.status().is_informational() {
            return Err(unsendable("a final response has no status of 1xx"));
        }
        self.expect(Stage::Head, "a second final response")?;
        self.flush().await?;
        let mut head = outgoing::response(response, self.stream.shared.peer_limit())?;
        if !content.is_empty() {
            outgoing::data_head(content.len(), &mut head);
        }
        // A CONNECT that is refused has an ordinary response.
        self.tunnel &= response.status().is_success();
        self.stream.said.response(response.headers());
        self.stage = Stage::Content;
        self.out = [head.into(), content];
        self.flush().await?;
        if end { self.finish().await } else { Ok(()) }
    }

    /// Sends a piece of content, without copying it. Waits while the peer's flow control is shut.
    ///
    /// # Errors
    /// [`Error::Unsendable`] before a response header or after trailers, [`Error::Stopped`] when the peer
    /// does not read any more, and the connection's end.
    pub async fn send_data(&mut self, content: Bytes) -> Result<(), Error> {
        self.expect(Stage::Content, "content before the header or after the end")?;
        self.flush().await?;
        if content.is_empty() {
            return Ok(());
        }
        let mut head = Vec::with_capacity(9);
        outgoing::data_head(content.len(), &mut head);
        self.out = [head.into(), content];
        self.flush().await
    }

    /// Sends trailers; [`finish`](Self::finish) must follow, or a reset: trailers alone do not make the message whole.
    ///
    /// # Errors
    /// As [`send_data`](Self::send_data); [`Error::Unsendable`] in a CONNECT tunnel (RFC 9114 §4.4).
    pub async fn send_trailers(&mut self, trailers: &HeaderMap) -> Result<(), Error> {
        self.expect(
            Stage::Content,
            "trailers before the header or after the end",
        )?;
        if self.tunnel {
            return Err(unsendable("a CONNECT tunnel has no trailers"));
        }
        self.flush().await?;
        self.out[0] = outgoing::trailers(trailers, self.stream.shared.peer_limit())?.into();
        self.stage = Stage::Trailed;
        self.flush().await
    }

    /// Ends our message; the peer may still be sending. Returns when QUIC has taken everything over, not
    /// when the peer has it.
    ///
    /// # Errors
    /// [`Error::Unsendable`] before a response header; [`Error::Stopped`] and the connection's end when
    /// something was still to be sent.
    pub async fn finish(&mut self) -> Result<(), Error> {
        match self.stage {
            Stage::Head => return Err(unsendable("the stream ends before a response header")),
            Stage::Ended => return Ok(()),
            Stage::Content | Stage::Trailed => {}
        }
        self.flush().await?;
        self.ended();
        // The only error is that the stream was reset, which `Ended` rules out.
        let _ = self.inner.finish();
        Ok(())
    }

    /// Gives the stream up with `code`; the peer drops what it has not read yet.
    pub fn reset(&mut self, code: Code) {
        self.ended();
        self.out = Default::default();
        // Fails only when it was reset before.
        let _ = self.inner.reset(code.into());
    }

    /// Completes with a code when the peer stops reading our half, with `None` when it has received all of
    /// it. Does not borrow the stream, so that it can be awaited beside a send.
    pub fn stopped(&self) -> impl Future<Output = Result<Option<Code>, Error>> + Send + use<> {
        shared::stopped(Arc::clone(&self.stream), &self.inner)
    }

    /// The QUIC stream's id.
    pub fn id(&self) -> u64 {
        self.stream.id
    }

    fn ended(&mut self) {
        self.stage = Stage::Ended;
        if let Some(channel) = &self.stream.datagrams {
            channel.close_send();
        }
    }

    fn expect(&self, stage: Stage, rule: &'static str) -> Result<(), Error> {
        if self.stage == stage {
            Ok(())
        } else {
            Err(unsendable(rule))
        }
    }

    /// Hands `out` to QUIC, frame head and payload in one write.
    pub(crate) async fn flush(&mut self) -> Result<(), Error> {
        if let Some(channel) = &self.stream.datagrams
            && let Err(fault) = channel.check(None)
        {
            let error = self.stream.fail(fault);
            self.reset(Code::DATAGRAM_ERROR);
            return Err(error);
        }
        while self.out.iter().any(|piece| !piece.is_empty()) {
            if let Err(error) = self.write_some().await {
                return Err(self.write_failed(error));
            }
        }
        Ok(())
    }

    /// Hands QUIC as much of `out` as may be sent, or waits until that is more.
    async fn write_some(&mut self) -> Result<(), WriteError> {
        let Self {
            inner,
            stream,
            out,
            allowance,
            place,
            ..
        } = self;
        let shared = &stream.shared;
        if let Some(place) = place.change(&stream.said) {
            // A stream that has ended says so when it is written to.
            let _ = inner.set_priority(place);
        }
        let (bulk, small) = (place.is_bulk(), allowance.is_small());
        let mut room = || allowance.room(shared.credit.told(), stream.meter.granted());
        if shared.turns.must_wait(bulk) || room() == 0 {
            let stopped = inner.stopped();
            let turn = async {
                shared.turns.wait(bulk).await;
                stream.meter.more(|| room() > 0).await;
            };
            let waiting = pin!(async {
                tokio::select! {
                    biased;
                    stopped = stopped => Err(told_to_stop(stopped)),
                    () = turn => Ok(()),
                }
            });
            return shared.waits.watch(waiting).await;
        }
        // Anew each time: while it waits for QUIC, others may come that go first, and the peer may want less.
        let write = pin!(poll_fn(|cx| match room() {
            0 => Poll::Ready(Ok(0)),
            _ if shared.turns.must_wait(bulk) => Poll::Ready(Ok(0)),
            room => poll_write(inner, out, room, cx),
        }));
        let written = match small {
            true => {
                shared
                    .waits
                    .watch(pin!(shared.turns.before_bulks(write)))
                    .await?
            }
            false => shared.waits.watch(write).await?,
        };
        allowance.sent(written);
        place.sent(written);
        shared.credit.sent(written);
        Ok(())
    }

    fn write_failed(&mut self, error: WriteError) -> Error {
        match error {
            WriteError::Stopped(code) => {
                // RFC 9000 §3.5: answer STOP_SENDING with a reset, with the same code.
                self.drop_code = code.into();
                if self.stream.shared.is_unprocessed(self.stream.id) {
                    return Error::GoingAway;
                }
                Error::Stopped { code: code.into() }
            }
            WriteError::ConnectionLost(reason) => self.stream.closed(reason),
            WriteError::ClosedStream => unsendable("the stream was already ended or reset"),
            WriteError::ZeroRttRejected => Error::GoingAway,
        }
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if self.stage != Stage::Ended {
            // Left alone, quinn would finish the stream: the peer would take what it has for the whole.
            self.reset(self.stream.abort_code().unwrap_or(self.drop_code));
        }
    }
}

/// Writes what there is, but at most `room` bytes. How many were written, which leave `out`.
fn poll_write(
    inner: &mut quinn::SendStream,
    out: &mut [Bytes; 2],
    room: u64,
    cx: &mut Context<'_>,
) -> Poll<Result<usize, WriteError>> {
    let first = usize::from(out[0].is_empty());
    let all: usize = out.iter().map(Bytes::len).sum();
    if all as u64 <= room {
        let written = ready!(pin!(inner.write_chunks(&mut out[first..])).poll(cx))?;
        return Poll::Ready(Ok(written.bytes));
    }
    let fits = usize::try_from(room).unwrap_or(usize::MAX);
    let piece = &mut out[first];
    let mut part = [piece.slice(..fits.min(piece.len()))];
    let written = ready!(pin!(inner.write_chunks(&mut part)).poll(cx))?;
    piece.advance(written.bytes);
    Poll::Ready(Ok(written.bytes))
}

fn told_to_stop(stopped: Result<Option<quinn::VarInt>, StoppedError>) -> WriteError {
    match stopped {
        Ok(Some(code)) => WriteError::Stopped(code),
        // It has ended.
        Ok(None) => WriteError::ClosedStream,
        Err(StoppedError::ConnectionLost(reason)) => WriteError::ConnectionLost(reason),
        Err(StoppedError::ZeroRttRejected) => WriteError::ZeroRttRejected,
    }
}

fn unsendable(rule: &'static str) -> Error {
    Error::Unsendable { rule }
}
