//! What the two halves of a stream share: HTTP/2 has one reset for both directions.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker, ready};

use bytes::Bytes;
use weft_h3::Code;

use super::codes;
use super::wire::TcpWire;
use crate::StreamError;

/// Our half, as `h2` has it.
pub(super) enum Half {
    /// A server's, before its response header.
    Head(h2::server::SendResponse<Bytes>),
    Body(h2::SendStream<Bytes>),
}

/// A stream, counted as under way while any half of it is held.
pub(super) struct Shared {
    half: Mutex<Half>,
    wakers: Arc<Wakers>,
    pub(super) wire: Arc<TcpWire>,
    pub(super) is_client: bool,
}

impl Shared {
    pub(super) fn new(half: Half, wire: Arc<TcpWire>, is_client: bool) -> Arc<Self> {
        wire.begin();
        Arc::new(Self {
            half: Mutex::new(half),
            wakers: Arc::default(),
            wire,
            is_client,
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Half> {
        // `h2` leaves its handles usable after each call.
        self.half.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives both directions up.
    pub(super) fn reset(&self, code: Code) {
        let reason = codes::reason(code);
        match &mut *self.lock() {
            Half::Head(head) => head.send_reset(reason),
            Half::Body(body) => body.send_reset(reason),
        }
    }

    pub(super) fn error(&self, error: &h2::Error) -> StreamError {
        codes::stream_error(error, self.wire.lost())
    }

    /// Waits for room, and then sends as much of `out` as fits; all of it is sent when this is ready. `last`: the
    /// stream ends behind it.
    pub(super) fn poll_send(
        &self,
        cx: &mut Context<'_>,
        out: &mut Bytes,
        last: bool,
    ) -> Poll<Result<(), StreamError>> {
        let waker = self.wakers.with(Waiting::ForRoom, cx);
        let mut cx = Context::from_waker(&waker);
        let mut half = self.lock();
        let Half::Body(body) = &mut *half else {
            return Poll::Ready(Err(codes::unsendable("content before the header")));
        };
        while !out.is_empty() {
            body.reserve_capacity(out.len());
            while body.capacity() == 0 {
                match ready!(body.poll_capacity(&mut cx)) {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Poll::Ready(Err(self.error(&error))),
                    None => return Poll::Ready(Err(self.stopped_while_sending(body, &mut cx))),
                }
            }
            let piece = out.split_to(body.capacity().min(out.len()));
            let end = last && out.is_empty();
            body.send_data(piece, end)
                .map_err(|error| self.error(&error))?;
            if end {
                return Poll::Ready(Ok(()));
            }
        }
        if last {
            body.send_data(Bytes::new(), true)
                .map_err(|error| self.error(&error))?;
        }
        Poll::Ready(Ok(()))
    }

    fn stopped_while_sending(
        &self,
        body: &mut h2::SendStream<Bytes>,
        cx: &mut Context<'_>,
    ) -> StreamError {
        match body.poll_reset(cx) {
            Poll::Ready(Ok(reason)) => {
                let code = codes::code(reason);
                weft_h3::Error::Stopped { code }.into()
            }
            Poll::Ready(Err(error)) => self.error(&error),
            Poll::Pending => codes::unsendable("the stream was already ended or reset"),
        }
    }

    /// Completes when the peer gives the stream up.
    pub(super) async fn stopped(self: Arc<Self>) -> Result<Option<Code>, StreamError> {
        poll_fn(|cx| {
            let waker = self.wakers.with(Waiting::ForStop, cx);
            let mut cx = Context::from_waker(&waker);
            let poll = match &mut *self.lock() {
                Half::Head(head) => head.poll_reset(&mut cx),
                Half::Body(body) => body.poll_reset(&mut cx),
            };
            poll.map_ok(|reason| Some(codes::code(reason)))
                .map_err(|error| self.error(&error))
        })
        .await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.wire.end();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Waiting {
    ForRoom,
    ForStop,
}

/// `h2` keeps one waker for a stream's sending side; we wait there for two things, perhaps in two tasks.
#[derive(Default)]
struct Wakers([Mutex<Option<Waker>>; 2]);

impl Wakers {
    /// A waker that wakes this one, and whoever waits for the other thing.
    fn with(self: &Arc<Self>, waiting: Waiting, cx: &Context<'_>) -> Waker {
        let mut slot = self.0[waiting as usize]
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &mut *slot {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *slot = Some(cx.waker().clone()),
        }
        Waker::from(Arc::clone(self))
    }
}

impl Wake for Wakers {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        for slot in &self.0 {
            let waker = slot.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}
