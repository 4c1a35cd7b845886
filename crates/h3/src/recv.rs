//! The peer's half of a request stream.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response};
use tokio::task::coop::poll_proceed;

use crate::asked::{Asked, response_content};
use crate::core::credit::Grants;
use crate::core::message::{Content, Event, MessageReader};
use crate::core::{Fault, Role, incoming};
use crate::shared::{Shared, Stream};
use crate::{Code, Datagrams, Error};

/// Pieces taken from QUIC under one lock. Full-sized packets make pieces of about 1.2 KiB.
const BATCH: usize = 4;
/// Interim responses taken before the final one. Real servers send one or two.
const MAX_INTERIM: u8 = 16;

/// Whether there is anything left to read.
#[derive(Debug)]
enum Ending {
    Open,
    /// The peer's message is complete.
    Clean,
    /// We told the peer to stop.
    Stopped,
    Failed(Box<Error>),
}

/// The half of a request stream that we read: a server's request body, a client's response.
///
/// Memory is bounded: content is handed on as it arrives and QUIC's flow control holds the peer back while
/// it is not read; of what is not content only a header section up to our limit is ever kept.
///
/// All methods are cancel safe. Dropped before its end, the stream tells the peer to stop sending:
/// `H3_REQUEST_CANCELLED` by a client, `H3_NO_ERROR` by a server.
#[derive(Debug)]
pub struct RecvStream {
    inner: quinn::RecvStream,
    stream: Arc<Stream>,
    reader: MessageReader,
    /// Received and not yet looked at: `queue[next..filled]`.
    queue: [Bytes; BATCH],
    next: u8,
    filled: u8,
    interim: u8,
    grants: Grants,
    asked: Asked,
    ending: Ending,
    trailers: Option<Box<HeaderMap>>,
    /// What a drop tells the peer to stop with.
    drop_code: Code,
}

impl RecvStream {
    pub(crate) fn new(inner: quinn::RecvStream, stream: Arc<Stream>, asked: Asked) -> Self {
        let shared = &stream.shared;
        let drop_code = match shared.role {
            Role::Client => Code::REQUEST_CANCELLED,
            // Until its header is read, nobody has seen the request.
            Role::Server => Code::REQUEST_REJECTED,
        };
        Self {
            reader: MessageReader::new(shared.role, shared.config.max_field_section_size),
            inner,
            stream,
            queue: [const { Bytes::new() }; BATCH],
            next: 0,
            filled: 0,
            interim: 0,
            grants: Grants::default(),
            asked,
            ending: Ending::Open,
            trailers: None,
            drop_code,
        }
    }

    /// Client: the final response header. Interim responses are passed over; take them one by one with
    /// [`next_head`](Self::next_head) to forward them.
    ///
    /// # Errors
    /// As [`next_head`](Self::next_head).
    pub async fn response(&mut self) -> Result<Response<()>, Error> {
        loop {
            let response = self.next_head().await?;
            if !response.status().is_informational() {
                return Ok(response);
            }
        }
    }

    /// Client: the next response header: any number of 1xx (at most 16), then the final one.
    ///
    /// # Errors
    /// What the peer did ([`Error::PeerReset`], [`Error::Malformed`], [`Error::TooLarge`],
    /// [`Error::Protocol`]), and the connection's end. [`Error::Unreadable`] when the final header was
    /// already taken.
    pub async fn next_head(&mut self) -> Result<Response<()>, Error> {
        let block = poll_fn(|cx| self.poll_head(cx)).await?;
        let (response, length) = incoming::response(&block, self.stream.shared.config.limits())
            .map_err(|fault| self.fail(fault))?;
        if response.status().is_informational() {
            self.interim += 1;
            if self.interim > MAX_INTERIM {
                return Err(self.fail(Fault::Stream {
                    code: Code::EXCESSIVE_LOAD,
                    rule: "interim responses without end",
                }));
            }
            return Ok(response);
        }
        self.reader
            .head_done(response_content(self.asked, response.status(), length));
        poll_fn(|cx| self.poll_prefetch(cx)).await;
        Ok(response)
    }

    /// Server: the request's header.
    pub(crate) async fn request(&mut self) -> Result<Request<()>, Error> {
        let block = poll_fn(|cx| self.poll_head(cx)).await?;
        let config = &self.stream.shared.config;
        let (request, length) = incoming::request(&block, config.limits(), config.extended_connect)
            .map_err(|fault| self.fail(fault))?;
        self.drop_code = Code::NO_ERROR;
        self.stream.set_protocol(request.extensions().get());
        self.stream.said.request(request.headers());
        self.reader.head_done(match length {
            _ if request.method() == Method::CONNECT => Content::Tunnel,
            Some(length) => Content::Exactly(length),
            None => Content::Open,
        });
        poll_fn(|cx| self.poll_prefetch(cx)).await;
        Ok(request)
    }

    /// The next piece of content, of any size, as it arrived; `None` at its end. A clean end is the only
    /// `None`: a message that is cut short, in any way, is an error.
    ///
    /// # Errors
    /// As [`next_head`](Self::next_head). [`Error::Unreadable`] before the response header was taken, and
    /// after [`stop`](Self::stop).
    pub async fn data(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll_data(cx)).await
    }

    /// As [`data`](Self::data), for implementations of `http_body::Body` and the like.
    pub fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        if self.reader.expects_head() && matches!(self.ending, Ending::Open) {
            return Poll::Ready(Err(Error::Unreadable {
                rule: "the header comes before the content",
            }));
        }
        loop {
            match ready!(self.poll_event(cx))? {
                Some(Event::Data(piece)) => return Poll::Ready(Ok(Some(piece))),
                Some(Event::Trailers(block)) => {
                    let limits = self.stream.shared.config.limits();
                    let trailers = incoming::trailers(&block, limits);
                    let trailers = trailers.map_err(|fault| self.fail(fault))?;
                    self.trailers = Some(Box::new(trailers));
                }
                Some(Event::Head(_)) => {
                    return Poll::Ready(Err(Error::Unreadable {
                        rule: "the header comes before the content",
                    }));
                }
                None => return Poll::Ready(Ok(None)),
            }
        }
    }

    /// Fills `pieces` from the front with what is there, at least one, and tells how many; 0 at the end.
    /// For a vectored write of what arrived in many packets.
    ///
    /// # Errors
    /// As [`data`](Self::data); pieces that came before an error are given first.
    pub async fn data_vectored(&mut self, pieces: &mut [Bytes]) -> Result<usize, Error> {
        let count = crate::gather(pieces, |cx| self.poll_data(cx)).await?;
        self.has_more_in_hand();
        Ok(count)
    }

    /// Whoever took pieces until there were none is busy with them, and does not wait for more: for callers of
    /// [`poll_data`](Self::poll_data) that do so.
    pub fn has_more_in_hand(&self) {
        if matches!(self.ending, Ending::Open) {
            self.stream.meter.hand_over(&self.stream.shared.credit);
        }
    }

    /// The trailers, once the content is read; what of it was not read is thrown away. `None` when there
    /// are none.
    ///
    /// # Errors
    /// As [`data`](Self::data).
    pub async fn trailers(&mut self) -> Result<Option<HeaderMap>, Error> {
        while self.data().await?.is_some() {}
        Ok(self.take_trailers())
    }

    /// The trailers, if the content's end was reached and there were any; without waiting.
    pub fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take().map(|trailers| *trailers)
    }

    /// The trailers as soon as they are here, even before the end of the stream; they stay.
    pub fn trailers_so_far(&self) -> Option<&HeaderMap> {
        self.trailers.as_deref()
    }

    /// Whether the end is already known without waiting: no content is left, and no trailers. True right
    /// after the header for most messages without content.
    pub fn is_end(&self) -> bool {
        matches!(self.ending, Ending::Clean) && self.trailers.is_none()
    }

    /// Tells the peer that we read no further, and why.
    pub fn stop(&mut self, code: Code) {
        if matches!(self.ending, Ending::Open) {
            self.end(Ending::Stopped);
            self.queue = Default::default();
            // Fails only when the stream has ended.
            let _ = self.inner.stop(code.into());
        }
    }

    /// The HTTP datagrams of an extended CONNECT. All handles of a request share one queue.
    ///
    /// # Errors
    /// [`Error::Unreadable`] when our own [`Config`](crate::Config) has them switched off, and for a request
    /// that has none.
    pub fn datagrams(&self) -> Result<Datagrams, Error> {
        Datagrams::new(&self.stream)
    }

    /// Whether our own configuration has datagrams switched on.
    pub(crate) fn takes_datagrams(&self) -> bool {
        self.stream.datagrams.is_some()
    }

    /// The QUIC stream's id.
    pub fn id(&self) -> u64 {
        self.stream.id
    }

    fn end(&mut self, ending: Ending) {
        self.ending = ending;
        self.stream.meter.empty(&self.stream.shared.credit);
        self.stream.shared.credit.give_back(&self.grants);
        self.grants = Grants::default();
        if let Some(channel) = &self.stream.datagrams {
            channel.close_recv();
        }
    }

    fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Error>> {
        if self.reader.expects_head()
            && let Some(Event::Head(block)) = ready!(self.poll_event(cx))?
        {
            return Poll::Ready(Ok(block));
        }
        Poll::Ready(Err(Error::Unreadable {
            rule: "there is no header left to read",
        }))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Event>, Error>> {
        if let Some(channel) = &self.stream.datagrams
            && let Err(fault) = channel.check(Some(cx))
        {
            return Poll::Ready(Err(self.fail(fault)));
        }
        loop {
            while self.next < self.filled {
                match self.reader.next(&mut self.queue[usize::from(self.next)]) {
                    Ok(Some(event)) => return Poll::Ready(Ok(Some(event))),
                    Ok(None) => self.next += 1,
                    Err(fault) => return Poll::Ready(Err(self.fail(fault))),
                }
            }
            match &self.ending {
                Ending::Open => match self.poll_fill(cx) {
                    Poll::Ready(()) => self.has_more_in_hand(),
                    Poll::Pending => {
                        self.stream.meter.empty(&self.stream.shared.credit);
                        return Poll::Pending;
                    }
                },
                Ending::Clean => return Poll::Ready(Ok(None)),
                Ending::Stopped => {
                    return Poll::Ready(Err(Error::Unreadable {
                        rule: "the stream was stopped by its reader",
                    }));
                }
                Ending::Failed(error) => return Poll::Ready(Err((**error).clone())),
            }
        }
    }

    /// Looks ahead after a header, so that [`is_end`](Self::is_end) knows of an end that is already here.
    fn poll_prefetch(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let rest = &self.queue[usize::from(self.next)..usize::from(self.filled)];
        if rest.iter().all(Bytes::is_empty) {
            let _ = self.poll_fill(cx);
        }
        Poll::Ready(())
    }

    /// Takes what QUIC has, or the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A peer that sends without a pause must not keep the thread to itself.
        let turn = ready!(poll_proceed(cx));
        // What lies here counts as read: where readers stand still, it is one packet of each.
        let taken = match self.stream.shared.credit.pressing() {
            Some(_) => 1,
            None => BATCH,
        };
        let queue = &mut self.queue[..taken];
        let read = ready!(pin!(self.inner.read_chunks(queue)).poll(cx));
        turn.made_progress();
        (self.next, self.filled) = (0, 0);
        match read {
            Ok(Some(count)) => {
                self.filled = count as u8;
                let Shared {
                    credit,
                    local_changed,
                    ..
                } = &*self.stream.shared;
                self.grants
                    .read(self.queue[..count].iter().map(Bytes::len).sum());
                credit.grant(self.stream.id, &mut self.grants, local_changed);
            }
            Ok(None) => match self.reader.finish() {
                Ok(()) => self.end(Ending::Clean),
                Err(fault) => drop(self.fail(fault)),
            },
            Err(error) => {
                let error = match error {
                    quinn::ReadError::Reset(code) => self.stream.peer_reset(code.into()),
                    quinn::ReadError::ConnectionLost(reason) => self.stream.closed(reason),
                    quinn::ReadError::ZeroRttRejected => Error::GoingAway,
                    quinn::ReadError::ClosedStream | quinn::ReadError::IllegalOrderedRead => {
                        Error::Unreadable {
                            rule: "the stream was closed by its reader",
                        }
                    }
                };
                self.end(Ending::Failed(Box::new(error)));
            }
        }
        Poll::Ready(())
    }

    /// Ends the stream because of what the peer sent.
    pub(crate) fn fail(&mut self, fault: Fault) -> Error {
        let code = match fault {
            // The 431 that the server sends is complete without the rest (RFC 9114 §4.1).
            Fault::TooLarge if self.stream.shared.role == Role::Server => Code::NO_ERROR,
            Fault::TooLarge => Code::EXCESSIVE_LOAD,
            Fault::Stream { code, .. } | Fault::Connection { code, .. } => code,
        };
        let error = self.stream.fail(fault);
        (self.next, self.filled) = (0, 0);
        self.queue = Default::default();
        // Fails only when the stream has ended.
        let _ = self.inner.stop(code.into());
        self.end(Ending::Failed(Box::new(error.clone())));
        error
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        // Left alone, quinn would send STOP_SENDING with code 0, which HTTP/3 does not have.
        self.stop(self.stream.abort_code().unwrap_or(self.drop_code));
    }
}

#[cfg(test)]
mod tests {
    /// Thousands of tunnels lie idle at a time.
    #[test]
    fn the_state_of_a_request_is_small() {
        let size = size_of::<super::RecvStream>() + size_of::<crate::SendStream>();
        assert!(size <= 512, "both halves take {size} bytes");
    }
}
