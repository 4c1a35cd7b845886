//! Whose turn it is to hand QUIC more, when it takes no more for now: QUIC wakes all that wait, and without a rule the
//! room goes to whoever comes first, which is a bulk.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use crate::shared::changed;

/// A small message that waits for longer does so for another reason than that there was no room, and goes before nobody.
const LONGEST: Duration = Duration::from_millis(50);

/// The turns on one connection.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    /// The control stream has something to send, before which no other stream sends: when the connection's credit is
    /// used up, the first of it that comes back must not go to whoever uses it up again.
    urgent: AtomicBool,
    /// Small messages that wait, before which no bulk sends.
    small: AtomicUsize,
    calm: Notify,
}

impl Turns {
    pub(crate) fn set_urgent(&self, urgent: bool) {
        self.urgent.store(urgent, Ordering::Release);
        if !urgent {
            self.calm.notify_waiters();
        }
    }

    /// Whether a stream must let others go first.
    pub(crate) fn must_wait(&self, bulk: bool) -> bool {
        self.urgent.load(Ordering::Acquire) || bulk && self.small.load(Ordering::Acquire) > 0
    }

    /// Completes when it need not any more.
    pub(crate) async fn wait(&self, bulk: bool) {
        changed(&self.calm, || (!self.must_wait(bulk)).then_some(())).await;
    }

    /// Runs the write of a small message: should it wait, bulks do so too.
    pub(crate) async fn before_bulks<F: Future>(&self, mut write: Pin<&mut F>) -> F::Output {
        let first = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = first {
            return done;
        }
        let waiting = Waiting::new(self);
        if let Ok(done) = timeout(LONGEST, write.as_mut()).await {
            return done;
        }
        drop(waiting);
        write.await
    }
}

/// A small message that waits.
struct Waiting<'a>(&'a Turns);

impl<'a> Waiting<'a> {
    fn new(turns: &'a Turns) -> Self {
        turns.small.fetch_add(1, Ordering::AcqRel);
        Self(turns)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.0.small.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.calm.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::Instant;

    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bulks_wait_for_a_small_message_that_waits_but_not_for_long() {
        let turns = Turns::default();
        turns.before_bulks(pin!(async {})).await;
        assert!(!turns.must_wait(true), "it did not wait");
        let (go, gone) = oneshot::channel::<()>();
        let gone = pin!(gone);
        let small = turns.before_bulks(gone);
        let bulk = async {
            assert!(turns.must_wait(true) && !turns.must_wait(false));
            go.send(()).unwrap();
            turns.wait(true).await;
        };
        tokio::join!(biased; small, bulk).0.unwrap();
        let never = pin!(std::future::pending());
        let began = Instant::now();
        tokio::select! {
            biased;
            () = turns.before_bulks(never) => {}
            () = turns.wait(true) => {}
        }
        assert_eq!(began.elapsed(), LONGEST);
        assert!(!turns.must_wait(true), "whoever gave up waits no longer");
    }

    #[tokio::test]
    async fn all_wait_for_the_control_stream() {
        let turns = Turns::default();
        turns.set_urgent(true);
        assert!(turns.must_wait(false) && turns.must_wait(true));
        let said = async { turns.set_urgent(false) };
        tokio::join!(biased; turns.wait(false), said);
    }
}
