//! How many requests a peer may have under way on one connection: few at first, more as it uses them.
//!
//! QUIC promises streams by number (`MAX_STREAMS`, RFC 9000 §4.6), and quinn keeps a place for each promised one from
//! the start, about 70 bytes. A full promise would make every idle connection cost a quarter of a megabyte.

/// Promised to every peer from the start.
const FIRST: u32 = 64;
/// By how much a promise grows at a time: a burst has all its places within a few round trips.
const GROWTH: u32 = 4;

/// The promise to one peer.
#[derive(Debug)]
pub(crate) struct Places {
    promised: u32,
    most: u32,
}

impl Places {
    /// The promise that a connection begins with, of at most `most`.
    pub(crate) fn new(most: u32) -> Self {
        Self {
            promised: FIRST.min(most),
            most,
        }
    }

    /// Requests that may be under way at one time.
    pub(crate) fn promised(&self) -> u32 {
        self.promised
    }

    /// The new promise if `active` requests under way show that the peer may soon need more than it has.
    pub(crate) fn grow(&mut self, active: usize) -> Option<u32> {
        if self.promised >= self.most || active <= self.promised as usize / 2 {
            return None;
        }
        self.promised = self.promised.saturating_mul(GROWTH).min(self.most);
        Some(self.promised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_grows_when_half_of_it_is_used_and_no_further_than_its_bound() {
        let mut places = Places::new(4_096);
        assert_eq!(places.promised(), 64);
        assert_eq!(places.grow(32), None);
        assert_eq!(places.grow(33), Some(256));
        assert_eq!(places.grow(33), None);
        assert_eq!(places.grow(129), Some(1_024));
        assert_eq!(places.grow(4_000), Some(4_096));
        assert_eq!(places.grow(4_000), None);
    }

    #[test]
    fn a_small_bound_is_the_promise() {
        let mut places = Places::new(3);
        assert_eq!(places.promised(), 3);
        assert_eq!(places.grow(3), None);
    }
}
