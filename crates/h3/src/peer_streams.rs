//! The peer's unidirectional streams, read without a task for each.

use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use quinn::{ReadError, RecvStream};
use tokio::task::coop::poll_proceed;

use crate::Code;
use crate::aside::{Outlet, stop};
use crate::core::control::{ControlEvent, ControlReader};
use crate::core::priority::Given;
use crate::core::qpack::instructions::{DecoderStream, check_encoder};
use crate::core::uni::{StreamType, TypeReader};
use crate::core::{Fault, Role};

/// Streams whose type has not arrived. A peer needs three at a time; while there are as many as this, no
/// further one is taken from QUIC, whose stream limit then holds the peer back.
const MAX_UNTYPED: usize = 16;
/// Most bytes taken from a stream at once.
const PIECE: usize = 4096;

/// The streams of a peer, as far as they are known.
#[derive(Debug)]
pub(crate) struct PeerStreams {
    role: Role,
    untyped: Vec<(RecvStream, TypeReader)>,
    control: Option<Control>,
    encoder: Option<RecvStream>,
    decoder: Option<(RecvStream, DecoderStream)>,
    /// Takes streams of a type of the owner's own.
    aside: Option<Outlet>,
}

struct Control {
    stream: RecvStream,
    reader: ControlReader,
    piece: Bytes,
    /// What was done when it was last read.
    work: u64,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Control").field(&self.stream.id()).finish()
    }
}

impl PeerStreams {
    pub(crate) fn new(role: Role, aside: Option<Outlet>) -> Self {
        Self {
            role,
            untyped: Vec::new(),
            control: None,
            encoder: None,
            decoder: None,
            aside,
        }
    }

    /// Whether another stream can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.untyped.len() < MAX_UNTYPED
    }

    /// Takes a stream that the peer opened.
    pub(crate) fn add(&mut self, stream: RecvStream) {
        self.untyped.push((stream, TypeReader::default()));
    }

    /// The next thing that the peer says on its control stream, but for priorities, of which there may be many: these
    /// are given to `prioritize`. `work` counts what it may say much about. Cancel safe.
    pub(crate) async fn next(
        &mut self,
        work: impl Fn() -> u64,
        mut prioritize: impl FnMut(u64, Given),
    ) -> Result<ControlEvent, Fault> {
        poll_fn(|cx| self.poll_next(cx, &work, &mut prioritize)).await
    }

    fn poll_next(
        &mut self,
        cx: &mut Context<'_>,
        work: &impl Fn() -> u64,
        prioritize: &mut impl FnMut(u64, Given),
    ) -> Poll<Result<ControlEvent, Fault>> {
        self.poll_untyped(cx)?;
        if let Some(stream) = &mut self.encoder {
            poll_pieces(stream, cx, |piece| check_encoder(&piece))?;
        }
        if let Some((stream, state)) = &mut self.decoder {
            poll_pieces(stream, cx, |piece| state.check(&piece))?;
        }
        match &mut self.control {
            Some(control) => control.poll(cx, work, prioritize),
            None => Poll::Pending,
        }
    }

    fn poll_untyped(&mut self, cx: &mut Context<'_>) -> Result<(), Fault> {
        let mut index = 0;
        while index < self.untyped.len() {
            let (stream, reader) = &mut self.untyped[index];
            match poll_piece(stream, cx) {
                Poll::Pending => index += 1,
                Poll::Ready(Some(mut piece)) => {
                    if let Some(kind) = reader.read(&mut piece) {
                        let (stream, _) = self.untyped.swap_remove(index);
                        self.typed(kind, stream, piece)?;
                    }
                }
                // RFC 9114 §6.2: a stream may end before its type is known.
                Poll::Ready(None) => drop(self.untyped.swap_remove(index)),
            }
        }
        Ok(())
    }

    fn typed(
        &mut self,
        kind: StreamType,
        mut stream: RecvStream,
        rest: Bytes,
    ) -> Result<(), Fault> {
        const TWICE: Fault = Fault::connection(
            Code::STREAM_CREATION_ERROR,
            "a second control or QPACK stream of one kind",
        );
        match kind {
            StreamType::Control => {
                let control = Control {
                    stream,
                    reader: ControlReader::new(self.role),
                    piece: rest,
                    work: 0,
                };
                self.control.replace(control).map_or(Ok(()), |_| Err(TWICE))
            }
            StreamType::QpackEncoder => {
                check_encoder(&rest)?;
                self.encoder.replace(stream).map_or(Ok(()), |_| Err(TWICE))
            }
            StreamType::QpackDecoder => {
                let mut state = DecoderStream::default();
                state.check(&rest)?;
                let old = self.decoder.replace((stream, state));
                old.map_or(Ok(()), |_| Err(TWICE))
            }
            // RFC 9114 §6.2.2.
            StreamType::Push if self.role == Role::Server => Err(Fault::connection(
                Code::STREAM_CREATION_ERROR,
                "a client opened a push stream",
            )),
            // RFC 9114 §4.6: we never sent MAX_PUSH_ID.
            StreamType::Push => Err(Fault::connection(
                Code::ID_ERROR,
                "a push that was not allowed",
            )),
            StreamType::Unknown(id) => {
                match &self.aside {
                    Some(aside) if aside.kind == id => {
                        if let Err(full) = aside.streams.try_send((stream, rest)) {
                            stop(&mut full.into_inner().0);
                        }
                    }
                    // RFC 9114 §9: not known, so ignored.
                    _ => stop(&mut stream),
                }
                Ok(())
            }
        }
    }
}

impl Control {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        work: &impl Fn() -> u64,
        prioritize: &mut impl FnMut(u64, Given),
    ) -> Poll<Result<ControlEvent, Fault>> {
        loop {
            // Anew for each piece: requests come while one poll reads what arrives on and on.
            let work = work();
            let before = std::mem::replace(&mut self.work, work);
            if before != work {
                self.reader.progress(work.wrapping_sub(before));
            }
            match self.reader.next(&mut self.piece)? {
                Some(ControlEvent::Priority { stream, given }) => {
                    prioritize(stream, given);
                    continue;
                }
                Some(event) => return Poll::Ready(Ok(event)),
                None => {}
            }
            self.piece = ready!(poll_piece(&mut self.stream, cx)).ok_or(CLOSED)?;
        }
    }
}

/// RFC 9114 §6.2.1, RFC 9204 §4.2.
const CLOSED: Fault = Fault::connection(
    Code::CLOSED_CRITICAL_STREAM,
    "the peer closed its control or QPACK stream",
);

/// Checks all that has arrived on a critical stream.
fn poll_pieces(
    stream: &mut RecvStream,
    cx: &mut Context<'_>,
    mut check: impl FnMut(Bytes) -> Result<(), Fault>,
) -> Result<(), Fault> {
    while let Poll::Ready(piece) = poll_piece(stream, cx) {
        check(piece.ok_or(CLOSED)?)?;
    }
    Ok(())
}

/// The next piece of a stream; `None` when the peer ended or reset it. Stays pending when the connection is
/// lost, which the driver learns by itself.
fn poll_piece(stream: &mut RecvStream, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
    // A peer that sends without a pause must not keep the thread to itself.
    let turn = ready!(poll_proceed(cx));
    let read = ready!(pin!(stream.read_chunk(PIECE, true)).poll(cx));
    turn.made_progress();
    match read {
        Ok(chunk) => Poll::Ready(chunk.map(|c| c.bytes)),
        Err(ReadError::ConnectionLost(_)) => Poll::Pending,
        Err(_) => Poll::Ready(None),
    }
}
