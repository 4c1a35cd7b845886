//! Which requests a server still takes: the two steps of a graceful end (RFC 9114 §5.2).

/// The first step's id: no client has that many streams, so nothing is refused by it.
pub(crate) const OPEN_END: u64 = (1 << 62) - 4;

/// A server's own GOAWAY.
#[derive(Debug, Default)]
pub(crate) struct Local {
    /// The first request id that was not handed out yet.
    next: u64,
    announced: Option<u64>,
}

impl Local {
    /// Whether the request on stream `id` may be processed. Ids come in rising order.
    pub(crate) fn admit(&mut self, id: u64) -> bool {
        if self.announced.is_some_and(|end| id >= end) {
            return false;
        }
        self.next = self.next.max(id + 4);
        true
    }

    /// First step: says that an end is coming. Does nothing once a GOAWAY is out.
    pub(crate) fn begin(&mut self) {
        self.announced.get_or_insert(OPEN_END);
    }

    /// Second step: the first request that will not be processed. Never rises again.
    pub(crate) fn finish(&mut self) {
        let end = self.announced.unwrap_or(OPEN_END).min(self.next);
        self.announced = Some(end);
    }

    /// The id that the peer should know of.
    pub(crate) fn announced(&self) -> Option<u64> {
        self.announced
    }

    /// Whether new requests are refused.
    pub(crate) fn is_finished(&self) -> bool {
        self.announced.is_some_and(|end| end < OPEN_END)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goaway_names_the_first_stream_that_was_not_processed() {
        let mut local = Local::default();
        assert!(local.admit(0) && local.admit(4));
        local.begin();
        assert_eq!(local.announced(), Some(OPEN_END));
        assert!(local.admit(8), "the first step refuses nothing");
        local.finish();
        assert_eq!(local.announced(), Some(12), "8 was processed, 12 was not");
        assert!(!local.admit(12) && !local.admit(16));
    }

    #[test]
    fn goaway_never_rises() {
        let mut local = Local::default();
        local.admit(0);
        local.finish();
        assert_eq!(local.announced(), Some(4));
        local.begin();
        local.finish();
        assert_eq!(local.announced(), Some(4));
        assert!(local.is_finished());
    }
}
