//! One direction of a stream.
//!
//! Between nodes the bytes travel in segments over the link. A lost segment is sent again after a timeout, and
//! those behind it wait (head of line); the window grows with every acknowledgement and halves with every
//! loss. That is TCP's shape and not its letter: enough for protocols above it, not for figures about TCP.
//! On one node the bytes are there at once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use weft_netsim::Fate;
use weft_netsim_heap::Outside;

use crate::event::{Event, NodeId};
use crate::world::{Shared, State, ns};

/// Ethernet's MTU less IPv4 and TCP headers.
const SEGMENT: usize = 1_460;
const HEADERS: usize = 40;
/// What may be unread at the receiver and under way to it.
const BUFFER: usize = 256 * 1_024;
/// Segments under way at first (RFC 6928), and at most.
const FIRST_WINDOW: usize = 10;
const LARGEST_WINDOW: usize = 512;
/// RFC 6298's minimum as Linux has it.
const SHORTEST_TIMEOUT: Duration = Duration::from_millis(200);
/// Retransmissions of one segment before the stream is given up, as Linux has it (about 15 minutes).
const MOST_TRIES: u32 = 15;
const LONGEST_TIMEOUT: Duration = Duration::from_secs(120);

/// What a segment carries.
#[derive(Clone)]
enum Segment {
    Data(Vec<u8>),
    End,
    Reset,
}

impl Segment {
    fn len(&self) -> usize {
        match self {
            Self::Data(bytes) => bytes.len(),
            Self::End | Self::Reset => 0,
        }
    }
}

pub(crate) struct Pipe {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    state: Mutex<Inner>,
}

struct Inner {
    // The receiver's side.
    readable: VecDeque<u8>,
    ended: bool,
    reset: bool,
    next: u64,
    early: BTreeMap<u64, Segment>,
    reader: Option<Waker>,
    reader_gone: bool,
    // The sender's side.
    under_way: BTreeMap<u64, (Segment, u32)>,
    bytes_under_way: usize,
    window: usize,
    numbered: u64,
    finished: bool,
    writer: Option<Waker>,
}

/// What a reader finds.
pub(crate) enum Read {
    Bytes(usize),
    End,
    Reset,
    Wait,
}

/// What becomes of a write.
pub(crate) enum Write {
    Taken(usize),
    Reset,
    Wait,
}

impl Pipe {
    pub(crate) fn new(from: NodeId, to: NodeId) -> Arc<Self> {
        let state = Inner {
            readable: VecDeque::new(),
            ended: false,
            reset: false,
            next: 0,
            early: BTreeMap::new(),
            reader: None,
            reader_gone: false,
            under_way: BTreeMap::new(),
            bytes_under_way: 0,
            window: FIRST_WINDOW,
            numbered: 0,
            finished: false,
            writer: None,
        };
        Arc::new(Self {
            from,
            to,
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_local(&self) -> bool {
        self.from == self.to
    }

    pub(crate) fn read(&self, out: &mut [u8], waker: &Waker) -> Read {
        let mut inner = self.lock();
        if inner.reset {
            return Read::Reset;
        }
        if inner.readable.is_empty() {
            if inner.ended {
                return Read::End;
            }
            inner.reader = Some(waker.clone());
            return Read::Wait;
        }
        let count = out.len().min(inner.readable.len());
        for (to, from) in out.iter_mut().zip(inner.readable.drain(..count)) {
            *to = from;
        }
        let writer = inner.writer.take();
        drop(inner);
        wake(writer);
        Read::Bytes(count)
    }

    pub(crate) fn write(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        data: &[u8],
        waker: &Waker,
    ) -> Write {
        // From here on the kernel holds it.
        let _outside = Outside::step();
        let mut inner = self.lock();
        if inner.reset || inner.finished || (self.is_local() && inner.reader_gone) {
            return Write::Reset;
        }
        let room = BUFFER.saturating_sub(inner.readable.len() + inner.bytes_under_way);
        let windows = inner.window.saturating_sub(inner.under_way.len());
        let most = if self.is_local() {
            room
        } else {
            room.min(windows * SEGMENT)
        };
        let count = most.min(data.len());
        if count == 0 && !data.is_empty() {
            inner.writer = Some(waker.clone());
            return Write::Wait;
        }
        if self.is_local() {
            inner.readable.extend(&data[..count]);
            let reader = inner.reader.take();
            drop(inner);
            wake(reader);
            return Write::Taken(count);
        }
        let mut numbers = Vec::new();
        for piece in data[..count].chunks(SEGMENT) {
            numbers.push(inner.enter(Segment::Data(piece.to_vec())));
        }
        drop(inner);
        for number in numbers {
            send(shared, self, number);
        }
        Write::Taken(count)
    }

    /// The writer has said all.
    pub(crate) fn finish(self: &Arc<Self>, shared: &Arc<Shared>) {
        self.close(shared, Segment::End);
    }

    /// The writer breaks off.
    pub(crate) fn reset(self: &Arc<Self>, shared: &Arc<Shared>) {
        self.close(shared, Segment::Reset);
    }

    fn close(self: &Arc<Self>, shared: &Arc<Shared>, how: Segment) {
        let mut inner = self.lock();
        if inner.reset || (inner.finished && matches!(how, Segment::End)) {
            return;
        }
        inner.finished = true;
        if self.is_local() {
            match how {
                Segment::Reset => inner.reset = true,
                Segment::End | Segment::Data(_) => inner.ended = true,
            }
            let (reader, writer) = (inner.reader.take(), inner.writer.take());
            drop(inner);
            wake(reader);
            wake(writer);
            return;
        }
        let number = inner.enter(how);
        drop(inner);
        send(shared, self, number);
    }

    /// The reader is gone. True if it left something unread, which TCP answers with a reset.
    pub(crate) fn abandon(&self) -> bool {
        let mut inner = self.lock();
        inner.reader_gone = true;
        let unread = !inner.readable.is_empty();
        inner.readable.clear();
        let writer = inner.writer.take();
        drop(inner);
        wake(writer);
        unread
    }

    /// Ends both directions at once for both ends, where the other end is on this node or has been told.
    pub(crate) fn break_off(&self) {
        let mut inner = self.lock();
        inner.reset = true;
        let (reader, writer) = (inner.reader.take(), inner.writer.take());
        drop(inner);
        wake(reader);
        wake(writer);
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.lock().reset
    }
}

impl Inner {
    /// Numbers a segment and keeps it until it is acknowledged.
    fn enter(&mut self, segment: Segment) -> u64 {
        let number = self.numbered;
        self.numbered += 1;
        self.bytes_under_way += segment.len();
        self.under_way.insert(number, (segment, 0));
        number
    }

    fn take(&mut self, segment: Segment) {
        match segment {
            Segment::Data(_) if self.reader_gone => self.reset = true,
            Segment::Data(bytes) => self.readable.extend(bytes),
            Segment::End => self.ended = true,
            Segment::Reset => self.reset = true,
        }
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// Sends a segment that waits to be acknowledged.
fn send(shared: &Arc<Shared>, pipe: &Arc<Pipe>, number: u64) {
    let (len, tries) = {
        let inner = pipe.lock();
        match inner.under_way.get(&number) {
            Some((segment, tries)) if !inner.reset => (segment.len(), *tries),
            _ => return,
        }
    };
    let now = shared.now_ns();
    let mut state = shared.state();
    let blank = vec![0; len];
    let fate = state.pass(shared.seed, pipe.from, pipe.to, now, &blank, HEADERS);
    let (due, event) = match fate {
        Some(Fate::Delivered(delivery)) => (
            ns(delivery.first.at),
            Event::Segment {
                pipe: pipe.clone(),
                number,
            },
        ),
        _ => later(shared, &mut state, pipe, number, tries),
    };
    shared.schedule(&mut state, due, event);
}

fn later(
    shared: &Shared,
    state: &mut State,
    pipe: &Arc<Pipe>,
    number: u64,
    tries: u32,
) -> (u64, Event) {
    let there = state.delay_ns(shared.seed, pipe.from, pipe.to);
    let back = state.delay_ns(shared.seed, pipe.to, pipe.from);
    let base = (2 * (there + back)).max(ns(SHORTEST_TIMEOUT));
    let wait = base.saturating_mul(1 << tries.min(10));
    (
        shared.now_ns() + wait.min(ns(LONGEST_TIMEOUT)),
        Event::Resend {
            pipe: pipe.clone(),
            number,
        },
    )
}

/// A segment has not been acknowledged in time.
pub(crate) fn resend(shared: &Arc<Shared>, pipe: &Arc<Pipe>, number: u64) {
    let mut inner = pipe.lock();
    inner.window = (inner.window / 2).max(2);
    let Some((_, tries)) = inner.under_way.get_mut(&number) else {
        return;
    };
    *tries += 1;
    let given_up = *tries > MOST_TRIES;
    drop(inner);
    if given_up {
        pipe.break_off();
    } else {
        send(shared, pipe, number);
    }
}

/// A segment arrives.
pub(crate) fn arrive(shared: &Arc<Shared>, pipe: &Arc<Pipe>, number: u64) {
    let (bytes, reader) = {
        let mut inner = pipe.lock();
        let Some((segment, _)) = inner.under_way.get(&number) else {
            return;
        };
        let segment = segment.clone();
        let bytes = segment.len();
        if number >= inner.next {
            inner.early.insert(number, segment);
        }
        while let Some(segment) = {
            let next = inner.next;
            inner.early.remove(&next)
        } {
            inner.next += 1;
            inner.take(segment);
        }
        (bytes, inner.reader.take())
    };
    wake(reader);
    let mut state = shared.state();
    let acknowledged = !state.is_cut(shared.seed, pipe.to, pipe.from);
    let (due, event) = if acknowledged {
        let back = state.delay_ns(shared.seed, pipe.to, pipe.from);
        pipe.lock().under_way.remove(&number);
        let pipe = pipe.clone();
        (shared.now_ns() + back, Event::Acked { pipe, bytes })
    } else {
        later(shared, &mut state, pipe, number, 0)
    };
    shared.schedule(&mut state, due, event);
}

/// The sender hears of it. Gives back whom to wake.
pub(crate) fn acked(pipe: &Pipe, bytes: usize) -> Option<Waker> {
    let mut inner = pipe.lock();
    inner.bytes_under_way = inner.bytes_under_way.saturating_sub(bytes);
    inner.window = (inner.window + 1).min(LARGEST_WINDOW);
    inner.writer.take()
}
