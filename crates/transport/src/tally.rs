//! How many handshakes became connections, and how many of them were resumed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::Direction;

/// Counts since the start.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    inbound: Kinds,
    outbound: Kinds,
}

#[derive(Debug, Default)]
struct Kinds {
    full: AtomicU64,
    resumed: AtomicU64,
}

impl Tally {
    pub(crate) fn count(&self, direction: Direction, resumed: bool) {
        let kinds = match direction {
            Direction::Inbound => &self.inbound,
            Direction::Outbound => &self.outbound,
        };
        let kind = if resumed { &kinds.resumed } else { &kinds.full };
        kind.fetch_add(1, Ordering::Relaxed);
    }

    /// By direction and kind: `full` or `resumed`.
    pub(crate) fn counts(&self) -> BTreeMap<(Direction, &'static str), u64> {
        let sides = [
            (Direction::Inbound, &self.inbound),
            (Direction::Outbound, &self.outbound),
        ];
        let of_side = |(direction, kinds): (Direction, &Kinds)| {
            [("full", &kinds.full), ("resumed", &kinds.resumed)]
                .map(|(kind, count)| ((direction, kind), count.load(Ordering::Relaxed)))
        };
        sides.into_iter().flat_map(of_side).collect()
    }
}
