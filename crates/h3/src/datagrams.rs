//! HTTP datagrams of a request (RFC 9297), as they come and go in QUIC DATAGRAM frames.

use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use quinn::SendDatagramError;

use crate::Error;
use crate::core::{Fault, datagram};
use crate::shared::Stream;

/// What a kept datagram counts beyond its bytes: its place in the queue, and the allocation.
const OVERHEAD: usize = 64;

/// The datagrams of one request: unreliable, unordered, in neither direction more than fits into a packet.
///
/// Datagrams that nobody takes are kept up to [`Config::datagram_buffer`](crate::Config::datagram_buffer),
/// then the newest are dropped. A request of another kind than extended CONNECT has none: a peer that sends
/// them all the same loses the request (`H3_DATAGRAM_ERROR`).
#[derive(Debug)]
pub struct Datagrams {
    stream: Arc<Stream>,
    channel: Arc<Channel>,
}

impl Datagrams {
    pub(crate) fn new(stream: &Arc<Stream>) -> Result<Self, Error> {
        let channel = stream.datagrams.as_ref().ok_or(Error::Unreadable {
            rule: "datagrams are switched off in the configuration",
        })?;
        if channel.lock().meaning == Meaning::None {
            return Err(Error::Unreadable {
                rule: "only an extended CONNECT may have datagrams",
            });
        }
        Ok(Self {
            stream: Arc::clone(stream),
            channel: Arc::clone(channel),
        })
    }

    /// The next datagram's payload. `None` when the peer's half of the stream has ended, in whatever way:
    /// [`RecvStream`](crate::RecvStream) tells, and has to be read for it. Cancel safe.
    pub async fn recv(&mut self) -> Option<Bytes> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let mut state = self.channel.lock();
        if let Some(datagram) = state.queue.pop_front() {
            state.kept -= datagram.len() + OVERHEAD;
            return Poll::Ready(Some(datagram));
        }
        if !state.recv_open {
            return Poll::Ready(None);
        }
        state.reader = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Sends a datagram. It is dropped when QUIC's buffer is full: the oldest go first.
    ///
    /// # Errors
    /// [`Error::NotOffered`] as long as the peer has not said that it takes datagrams,
    /// [`Error::DatagramTooBig`], [`Error::Unsendable`] once our half of the stream has ended, and the
    /// connection's end.
    pub fn send(&self, payload: &[u8]) -> Result<(), Error> {
        self.send_parts([&[], payload])
    }

    pub(crate) fn send_parts(&self, parts: [&[u8]; 2]) -> Result<(), Error> {
        const NOT_OFFERED: Error = Error::NotOffered {
            what: "HTTP datagrams",
        };
        let shared = &self.stream.shared;
        // RFC 9297 §2.1.1: both sides must have said so.
        if !self.is_offered() {
            return Err(NOT_OFFERED);
        }
        // RFC 9297 §2.1.
        if !self.channel.lock().send_open {
            return Err(Error::Unsendable {
                rule: "a datagram after the stream's end",
            });
        }
        let frame = datagram::encode(self.stream.id, parts);
        let size = frame.len();
        shared
            .conn
            .send_datagram(frame.into())
            .map_err(|error| match error {
                SendDatagramError::TooLarge => Error::DatagramTooBig {
                    size,
                    limit: shared.conn.max_datagram_size().unwrap_or(0),
                },
                SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled => NOT_OFFERED,
                SendDatagramError::ConnectionLost(reason) => self.stream.closed(reason),
            })
    }

    /// Whether datagrams can be sent at all: both sides' SETTINGS and QUIC's parameters allow it.
    pub fn is_offered(&self) -> bool {
        let shared = &self.stream.shared;
        let peer = shared.peer_settings().is_some_and(|s| s.h3_datagram);
        peer && shared.is_settings_sent() && shared.conn.max_datagram_size().is_some()
    }

    /// Datagrams that were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.channel.lock().dropped
    }
}

/// Whether datagrams mean anything on a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// Its header is not read yet.
    Unknown,
    None,
    Some,
}

/// Where the datagrams of one request wait.
#[derive(Debug)]
pub(crate) struct Channel {
    capacity: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    meaning: Meaning,
    queue: VecDeque<Bytes>,
    kept: usize,
    dropped: u64,
    recv_open: bool,
    send_open: bool,
    /// A datagram came although the request has none.
    violated: bool,
    reader: Option<Waker>,
    /// Whoever reads the stream itself.
    owner: Option<Waker>,
}

impl Channel {
    fn new(capacity: usize) -> Self {
        Self {
            capacity,
            state: Mutex::new(State {
                meaning: Meaning::Unknown,
                queue: VecDeque::new(),
                kept: 0,
                dropped: 0,
                recv_open: true,
                send_open: true,
                violated: false,
                reader: None,
                owner: None,
            }),
        }
    }

    /// The lock is held for a few lines, never across an await.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The request's header is known: it may have datagrams, or not.
    pub(crate) fn set_meaning(&self, may_have: bool) {
        let mut state = self.lock();
        if may_have {
            state.meaning = Meaning::Some;
            return;
        }
        state.meaning = Meaning::None;
        state.violated = state.kept > 0;
        state.queue = VecDeque::new();
    }

    fn push(&self, payload: &Bytes) {
        let mut state = self.lock();
        // RFC 9297 §2.1: too late.
        if !state.recv_open {
            return;
        }
        if state.meaning == Meaning::None {
            state.violated = true;
            wake(&mut state.owner);
            return;
        }
        let cost = payload.len() + OVERHEAD;
        if state.kept + cost > self.capacity {
            state.dropped += 1;
            return;
        }
        state.kept += cost;
        // A slice would keep a whole batch of received packets alive.
        state.queue.push_back(Bytes::copy_from_slice(payload));
        wake(&mut state.reader);
    }

    pub(crate) fn close_recv(&self) {
        let mut state = self.lock();
        state.recv_open = false;
        wake(&mut state.reader);
    }

    pub(crate) fn close_send(&self) {
        self.lock().send_open = false;
    }

    /// RFC 9297 §2: a datagram on a request that has none ends the request.
    pub(crate) fn check(&self, cx: Option<&Context<'_>>) -> Result<(), Fault> {
        let mut state = self.lock();
        if state.violated {
            return Err(Fault::Stream {
                code: crate::Code::DATAGRAM_ERROR,
                rule: "a datagram on a request that has none",
            });
        }
        if let Some(cx) = cx {
            state.owner = Some(cx.waker().clone());
        }
        Ok(())
    }
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}

/// The channels of a connection's requests, by stream id.
#[derive(Debug)]
pub(crate) struct Channels {
    capacity: usize,
    open: Mutex<HashMap<u64, Arc<Channel>>>,
}

impl Channels {
    /// `None` when datagrams are switched off.
    pub(crate) fn new(capacity: usize) -> Option<Self> {
        (capacity > 0).then(|| Self {
            capacity,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Arc<Channel>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, id: u64) -> Arc<Channel> {
        let channel = Arc::new(Channel::new(self.capacity));
        self.lock().insert(id, Arc::clone(&channel));
        channel
    }

    pub(crate) fn close(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// The connection is lost: nothing more will come.
    pub(crate) fn close_all(&self) {
        for channel in self.lock().values() {
            channel.close_recv();
        }
    }

    /// Hands a QUIC DATAGRAM frame's payload to its request. One for a stream that does not exist, yet or any
    /// more, is dropped (RFC 9297 §2.1).
    pub(crate) fn dispatch(&self, frame: Bytes) -> Result<(), Fault> {
        let (id, payload) = datagram::decode(frame)?;
        let channel = self.lock().get(&id).map(Arc::clone);
        if let Some(channel) = channel {
            channel.push(&payload);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(payload: &[u8]) -> Bytes {
        datagram::encode(4, [&[], payload]).into()
    }

    #[test]
    fn what_nobody_takes_is_bounded_and_empty_datagrams_count_too() {
        let channels = Channels::new(1000).unwrap();
        let channel = channels.open(4);
        for len in [0, 1, 100, 2000] {
            for _ in 0..10_000 {
                channels.dispatch(frame(&vec![0; len])).unwrap();
            }
        }
        let state = channel.lock();
        assert!(state.kept <= 1000, "{} bytes are kept", state.kept);
        assert_eq!(state.queue.len() as u64, 40_000 - state.dropped);
        assert!(state.queue.len() <= 1000 / OVERHEAD);
    }

    #[test]
    fn datagrams_of_other_streams_and_of_closed_ones_are_dropped() {
        let channels = Channels::new(1000).unwrap();
        let channel = channels.open(4);
        let other = datagram::encode(8, [&[], b"x"]);
        channels.dispatch(other.into()).unwrap();
        assert!(channel.lock().queue.is_empty());
        channel.close_recv();
        channels.dispatch(frame(b"late")).unwrap();
        assert!(channel.lock().queue.is_empty());
        channels.close(4);
        channels.dispatch(frame(b"later")).unwrap();
        assert!(channels.lock().is_empty());
    }
}
