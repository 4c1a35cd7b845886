//! How long streams had to wait until they could send: for credit of the peer, or for room behind what the network
//! has not taken yet.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::time::Instant;

/// What is known of it for one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Blocked {
    /// Streams that wait now.
    pub streams: usize,
    /// Time in which at least one waited, since the connection was opened.
    pub total: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Waits(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    streams: usize,
    /// Since when at least one waits.
    since: Option<Instant>,
    total: Duration,
}

impl Waits {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Plain numbers, whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a future that waits for nothing but leave to send. One that is done at once costs nothing.
    /// It is borrowed, since one taken by value would have its room twice.
    pub(crate) async fn watch<F: Future>(&self, mut sending: Pin<&mut F>) -> F::Output {
        let first = poll_fn(|cx| Poll::Ready(sending.as_mut().poll(cx))).await;
        match first {
            Poll::Ready(done) => done,
            Poll::Pending => {
                let _wait = self.begin();
                sending.await
            }
        }
    }

    fn begin(&self) -> Wait<'_> {
        let mut state = self.lock();
        if state.streams == 0 {
            state.since = Some(Instant::now());
        }
        state.streams += 1;
        Wait(self)
    }

    pub(crate) fn seen(&self) -> Blocked {
        let state = self.lock();
        let running = state.since.map_or(Duration::ZERO, |since| since.elapsed());
        Blocked {
            streams: state.streams,
            total: state.total + running,
        }
    }
}

/// A stream that waits.
struct Wait<'a>(&'a Waits);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.streams -= 1;
        if state.streams == 0
            && let Some(since) = state.since.take()
        {
            state.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use tokio::sync::oneshot;

    #[tokio::test]
    async fn time_counts_once_however_many_streams_wait_and_what_is_done_at_once_does_not() {
        let waits = Waits::default();
        waits.watch(pin!(async {})).await;
        assert_eq!(waits.seen(), Blocked::default());
        let ((first, go), (second, go_too)) = {
            let (a, b) = (oneshot::channel::<()>(), oneshot::channel::<()>());
            ((a.1, a.0), (b.1, b.0))
        };
        let (first, second) = (pin!(first), pin!(second));
        let began = Instant::now();
        let look = async {
            assert_eq!(waits.seen().streams, 2);
            go.send(()).unwrap();
            go_too.send(()).unwrap();
        };
        let (one, two, ()) = tokio::join!(biased; waits.watch(first), waits.watch(second), look);
        one.unwrap();
        two.unwrap();
        let seen = waits.seen();
        assert_eq!(seen.streams, 0);
        assert!(
            seen.total > Duration::ZERO && seen.total <= began.elapsed(),
            "{seen:?}"
        );
        let settled = waits.seen().total;
        assert_eq!(settled, seen.total, "nobody waits any more");
    }

    #[tokio::test]
    async fn who_gives_up_waits_no_longer() {
        let waits = Waits::default();
        {
            let never = pin!(std::future::pending::<()>());
            let mut waiting = pin!(waits.watch(never));
            poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx)))
                .await
                .is_pending();
            assert_eq!(waits.seen().streams, 1);
        }
        assert_eq!(waits.seen().streams, 0);
    }
}
