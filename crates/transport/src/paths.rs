//! What each path shows, looked at each second: where copies help ([`crate::copies`]) and where they would harm.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::core::Core;

/// How often.
const LOOK: Duration = Duration::from_secs(1);
/// Packets that say something about loss.
const ENOUGH: u64 = 100;
/// Copies stay on for so long after loss was seen. With them on, loss hides; so they pause from time to time,
/// and a second without them shows whether the path still loses.
const PROTECTED: Duration = Duration::from_secs(60);
/// Below this round trip a retransmission is cheap enough.
const SHORT: Duration = Duration::from_millis(10);
/// Loss that is worth the bytes, and loss at which the path is broken or full.
const WORTH: f64 = 0.002;
const TOO_MUCH: f64 = 0.15;

/// Counters of a path at the last look.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    sent: u64,
    lost: u64,
}

/// What a path shows since the last look that said something.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Sight {
    sent: u64,
    lost: u64,
    rtt: Duration,
    min_rtt: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Advice {
    /// Too little was seen.
    Wait,
    /// It loses at random: copy.
    Protect,
    /// It is full: add nothing.
    Full,
    /// It carries what it is given, or is short.
    Leave,
}

fn judge(sight: &Sight) -> Advice {
    let queue = sight.rtt.saturating_sub(sight.min_rtt);
    if queue > sight.min_rtt / 4 + Duration::from_millis(5) {
        return Advice::Full;
    }
    if sight.sent < ENOUGH {
        return Advice::Wait;
    }
    let loss = sight.lost as f64 / sight.sent as f64;
    match loss {
        _ if sight.min_rtt < SHORT => Advice::Leave,
        _ if loss > TOO_MUCH => Advice::Full,
        _ if loss >= WORTH => Advice::Protect,
        _ => Advice::Leave,
    }
}

/// Looks after all paths of an endpoint until it ends.
pub(crate) async fn watch(core: Arc<Core>) {
    let mut tick = interval(LOOK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let stop = core.tasks.token();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = tick.tick() => look(&core),
        }
    }
}

fn look(core: &Core) {
    let now = Instant::now();
    for link in core.registry.all() {
        let Some(quic) = link.wire.quic() else {
            continue;
        };
        let path = quic.stats().path;
        let total = Seen {
            sent: path.sent_packets,
            lost: path.lost_packets,
        };
        let before = link.seen();
        let sight = Sight {
            sent: total.sent.saturating_sub(before.sent),
            lost: total.lost.saturating_sub(before.lost),
            rtt: path.rtt,
            min_rtt: path.min_rtt,
        };
        let remote = link.remote();
        let protected = core.copies.is_protected(remote, now);
        match judge(&sight) {
            Advice::Wait => continue,
            Advice::Protect => core.copies.protect(remote, now, now + PROTECTED),
            Advice::Full if protected => core.copies.leave(remote),
            // While it is protected loss does not show: its time ends by itself.
            Advice::Full | Advice::Leave => {}
        }
        link.set_seen(total);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_for_long_paths_that_lose_at_random() {
        let sight = |sent, lost, rtt, min| Sight {
            sent,
            lost,
            rtt: Duration::from_millis(rtt),
            min_rtt: Duration::from_millis(min),
        };
        for (what, sight, expected) in [
            (
                "one percent at 80 ms",
                sight(1_000, 10, 81, 80),
                Advice::Protect,
            ),
            ("nothing lost", sight(1_000, 0, 81, 80), Advice::Leave),
            (
                "one in two thousand",
                sight(2_000, 1, 81, 80),
                Advice::Leave,
            ),
            ("a data centre", sight(1_000, 10, 1, 1), Advice::Leave),
            ("a full queue", sight(1_000, 10, 110, 80), Advice::Full),
            ("a policer", sight(1_000, 300, 81, 80), Advice::Full),
            ("hardly anything sent", sight(20, 1, 81, 80), Advice::Wait),
        ] {
            assert_eq!(judge(&sight), expected, "{what}");
        }
    }
}
