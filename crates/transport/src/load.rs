//! Whether a connection takes requests, and the one race that matters: a request that begins while an idle
//! connection is being closed. Both go through one atomic word, so exactly one of them wins.

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Notify;

/// Set when the connection takes no request any more.
const RETIRED: u64 = 1 << 63;

/// Requests that are being opened, and the flag that refuses more. Once open, a request is counted by
/// `weft-h3`.
#[derive(Debug, Default)]
pub(crate) struct Load {
    word: AtomicU64,
    carried: AtomicU64,
    settled: Notify,
}

impl Load {
    /// Begins to open a request; ends with the guard. `None` when the connection is retired.
    pub(crate) fn begin(&self) -> Option<Opening<'_>> {
        let counted = self
            .word
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |word| {
                (word & RETIRED == 0).then_some(word + 1)
            });
        counted.ok().map(|_| Opening(self))
    }

    /// Counts a request that was opened.
    pub(crate) fn count(&self) {
        self.carried.fetch_add(1, Ordering::Relaxed);
    }

    /// Refuses requests from now on. True the first time.
    pub(crate) fn retire(&self) -> bool {
        let before = self.word.fetch_or(RETIRED, Ordering::AcqRel);
        if before == 0 {
            self.settled.notify_waiters();
        }
        before & RETIRED == 0
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.word.load(Ordering::Acquire) & RETIRED != 0
    }

    /// Whether no request is being opened and none ever will. `Opening` ends after `weft-h3` has counted
    /// the request, so who sees this true and *then* no request under way may close.
    pub(crate) fn is_settled(&self) -> bool {
        self.word.load(Ordering::Acquire) == RETIRED
    }

    /// Completes when [`is_settled`](Self::is_settled).
    pub(crate) async fn settled(&self) {
        loop {
            let mut notified = pin!(self.settled.notified());
            notified.as_mut().enable();
            if self.is_settled() {
                return;
            }
            notified.await;
        }
    }

    /// Requests since the connection was opened.
    pub(crate) fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

/// A request that is being opened.
pub(crate) struct Opening<'a>(&'a Load);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if self.0.word.fetch_sub(1, Ordering::AcqRel) == RETIRED + 1 {
            self.0.settled.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_settles_when_it_is_retired_and_the_last_opening_ended() {
        let load = Load::default();
        let opening = load.begin().expect("a fresh connection takes requests");
        assert!(load.retire(), "the first time");
        assert!(!load.retire(), "the second time");
        assert!(
            load.is_retired() && !load.is_settled(),
            "a request is being opened"
        );
        assert!(load.begin().is_none(), "a retired connection takes none");
        drop(opening);
        assert!(load.is_settled());
    }

    #[tokio::test]
    async fn who_waits_for_it_hears_of_the_last_opening_and_of_a_retirement() {
        let load = Load::default();
        let opening = load.begin();
        load.retire();
        let ended = async { drop(opening) };
        tokio::join!(biased; load.settled(), ended);
        let load = Load::default();
        let retired = async { assert!(load.retire()) };
        tokio::join!(biased; load.settled(), retired);
    }

    #[test]
    fn an_idle_connection_that_is_not_retired_is_not_settled() {
        let load = Load::default();
        drop(load.begin());
        assert!(!load.is_settled() && !load.is_retired());
        assert_eq!(load.carried(), 0, "opening is not having opened");
    }
}
