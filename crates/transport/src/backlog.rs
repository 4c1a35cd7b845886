//! How much a connection takes from its streams ahead of its path. Pure.
//!
//! What QUIC has taken goes out in the order of priorities, but only once it has been taken: when bulks have filled
//! all that it takes, a small message waits for room first. On a path that is full that is a wait in a queue of our
//! own, which need not be longer than what keeps the path busy.

use std::time::Duration;

/// Looks without a sign of a queue until a path does not count as full any more.
const CALM: u8 = 10;
/// Beyond the congestion window, so that the sender has something to send when acknowledgements come in bursts: a
/// quarter of it, and this.
const SPARE: u64 = 64 * 1024;
/// Never less.
const LEAST: u64 = 128 * 1024;

/// A round trip so far above the shortest is taken for a queue: this, and a sixteenth. A wrong yes costs little.
const QUEUE: Duration = Duration::from_millis(2);

/// Whether packets seem to wait in queues.
pub(crate) fn has_queue(rtt: Duration, shortest: Duration) -> bool {
    rtt.saturating_sub(shortest) > shortest / 16 + QUEUE
}

/// What looks have seen of one connection.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    /// Looks until the path does not count as full.
    left: u8,
    /// The congestion window while it was, which falls with each loss and comes back.
    usual: u64,
    /// What was decided last; `None` before the first time.
    window: Option<u64>,
}

impl Backlog {
    /// The send window to set, if it is another than before. `most`: that of the profile; `is_full`: packets wait in
    /// queues on the path now; `congestion_window` in bytes.
    pub(crate) fn look(&mut self, most: u64, is_full: bool, congestion_window: u64) -> Option<u64> {
        self.left = match is_full {
            true => CALM,
            false => self.left.saturating_sub(1),
        };
        self.usual = match self.left {
            0 => 0,
            _ => congestion_window.max(self.usual - self.usual / 8),
        };
        let window = match self.left {
            0 => most,
            _ => (self.usual + self.usual / 4 + SPARE).max(LEAST).min(most),
        };
        let before = self.window.replace(window).unwrap_or(most);
        (before != window).then_some(window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 8 << 20;

    #[test]
    fn a_path_that_is_not_full_has_all_of_it() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.look(MOST, false, 14_000), None);
        assert_eq!(backlog.look(MOST, false, 10_000_000), None);
    }

    #[test]
    fn a_full_path_has_what_keeps_it_busy_until_it_has_been_calm_for_a_while() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.look(MOST, true, 400_000), Some(500_000 + SPARE));
        let mut window = 500_000 + SPARE;
        for _ in 1..CALM {
            // A loss has halved it: it comes back.
            window = backlog.look(MOST, false, 200_000).unwrap_or(window);
            assert!((250_000 + SPARE..=500_000 + SPARE).contains(&window));
        }
        assert_eq!(backlog.look(MOST, false, 200_000), Some(MOST));
        assert_eq!(backlog.look(MOST, false, 200_000), None);
    }

    #[test]
    fn it_is_never_too_little_and_never_more_than_the_profiles() {
        let mut backlog = Backlog::default();
        assert_eq!(backlog.look(MOST, true, 3_000), Some(LEAST));
        assert_eq!(backlog.look(MOST, true, 100_000_000), Some(MOST));
    }
}
