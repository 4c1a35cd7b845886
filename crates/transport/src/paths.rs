//! What each path shows, looked at each second: for whoever asks whether it is the network, and for copies
//! ([`crate::copies`]), which help on some paths and would harm on others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::Copying;
use crate::backlog::{self, Backlog};
use crate::core::Core;
use crate::registry::Link;
use crate::stats::Measured;

/// How often.
const LOOK: Duration = Duration::from_secs(1);
/// Looks that count as "recent".
const RECENT: usize = 10;
/// Packets that say something about loss.
const ENOUGH: u64 = 100;
/// Copies stay on for so long after loss was seen. With them on, loss hides; so they pause from time to time,
/// and a second without them shows whether the path still loses.
const PROTECTED: Duration = Duration::from_secs(60);
/// Below this round trip a retransmission is cheap enough.
const SHORT: Duration = Duration::from_millis(10);
/// Longest round trip within a data centre.
const DATA_CENTRE: Duration = Duration::from_millis(5);
/// Loss that is worth the bytes, and loss at which the path is broken or full.
const WORTH: f64 = 0.002;
const TOO_MUCH: f64 = 0.15;

/// Counters of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) sent: u64,
    pub(crate) lost: u64,
}

impl Seen {
    fn since(self, before: Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(before.sent),
            lost: self.lost.saturating_sub(before.lost),
        }
    }

    /// The share that was lost; `None` of too few packets.
    fn loss(self) -> Option<f64> {
        (self.sent >= ENOUGH).then(|| self.lost as f64 / self.sent as f64)
    }
}

/// A path at one look.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look {
    pub(crate) total: Seen,
    /// Datagrams that have arrived.
    pub(crate) heard: u64,
    /// Path challenges of the peer: it sends them when our address has changed.
    pub(crate) challenged: u64,
    /// The peer's address.
    pub(crate) remote: SocketAddr,
}

/// What the looks at one path have shown. Pure: time is an argument.
#[derive(Debug)]
pub(crate) struct Sightings {
    /// At the last look by which copies were decided on.
    judged: Seen,
    /// At the last looks, oldest first.
    recent: VecDeque<Seen>,
    last: Option<Look>,
    heard_at: Instant,
    migrations: u64,
    backlog: Backlog,
}

impl Sightings {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            judged: Seen::default(),
            recent: VecDeque::new(),
            last: None,
            heard_at: now,
            migrations: 0,
            backlog: Backlog::default(),
        }
    }

    fn look(&mut self, now: Instant, look: Look) {
        let before = self.last.replace(look);
        if before.is_none_or(|before| before.heard != look.heard) {
            self.heard_at = now;
        }
        if let Some(before) = before
            && (before.remote != look.remote || before.challenged != look.challenged)
        {
            self.migrations += 1;
        }
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(look.total);
    }

    /// The share lost of what was sent in the last ten seconds; `None` if too little was.
    pub(crate) fn recent_loss(&self, total: Seen) -> Option<f64> {
        let before = self.recent.front().copied().unwrap_or_default();
        total.since(before).loss()
    }

    /// How long nothing has arrived, as far as looks can tell.
    pub(crate) fn silent(&self, now: Instant, heard: u64) -> Duration {
        match self.last {
            Some(last) if last.heard == heard => now.saturating_duration_since(self.heard_at),
            _ => Duration::ZERO,
        }
    }

    /// Seconds in which an address of the path changed, the peer's or our own.
    pub(crate) fn migrations(&self) -> u64 {
        self.migrations
    }
}

/// Which kind of path this is, by what it showed.
pub(crate) fn measure(rtt: Duration, min_rtt: Duration, loss: Option<f64>) -> Measured {
    let queue = rtt.saturating_sub(min_rtt);
    if queue > min_rtt / 4 + Duration::from_millis(5) {
        return Measured::Full;
    }
    match loss {
        Some(loss) if loss > TOO_MUCH => Measured::Broken,
        Some(loss) if loss >= WORTH => Measured::Lossy,
        _ if min_rtt < DATA_CENTRE => Measured::Dc,
        _ => Measured::Wan,
    }
}

/// Round trips to addresses that were met before, so that the next connection there need not guess.
#[derive(Debug, Default)]
pub(crate) struct RoundTrips(Mutex<BTreeMap<SocketAddr, Duration>>);

/// Addresses remembered.
const MOST_REMEMBERED: usize = 4_096;
/// Bounds for what is assumed of a path before its first sample: a timer that is too short floods, one that is too
/// long makes the first loss cost seconds.
const LEAST_RTT: Duration = Duration::from_millis(2);
const LONGEST_RTT: Duration = Duration::from_secs(1);

impl RoundTrips {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Duration>> {
        // Whole after every statement.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remember(&self, addr: SocketAddr, rtt: Duration) {
        let mut known = self.lock();
        if known.len() >= MOST_REMEMBERED && !known.contains_key(&addr) {
            known.pop_first();
        }
        known.insert(addr, rtt.clamp(LEAST_RTT, LONGEST_RTT));
    }

    pub(crate) fn of(&self, addr: SocketAddr) -> Option<Duration> {
        self.lock().get(&addr).copied()
    }
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
    if measure(sight.rtt, sight.min_rtt, None) == Measured::Full {
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
    let mut takers = BTreeSet::new();
    for link in core.registry.all() {
        if link.takes_parity() {
            takers.insert(link.remote());
        }
        let Some(quic) = link.wire.quic() else {
            continue;
        };
        let stats = quic.stats();
        let total = Seen {
            sent: stats.path.sent_packets,
            lost: stats.path.lost_packets,
        };
        let look = Look {
            total,
            heard: stats.udp_rx.datagrams,
            challenged: stats.frame_rx.path_challenge,
            remote: link.remote(),
        };
        let mut sightings = link.sightings();
        sightings.look(now, look);
        let since = total.since(sightings.judged);
        let sight = Sight {
            sent: since.sent,
            lost: since.lost,
            rtt: stats.path.rtt,
            min_rtt: stats.path.min_rtt,
        };
        let is_full = backlog::has_queue(sight.rtt, sight.min_rtt);
        let backlog = &mut sightings.backlog;
        if let Some(window) = backlog.look(link.send_window(), is_full, stats.path.cwnd) {
            quic.set_send_window(window);
        }
        if copy(core, &link, &sight, now) {
            sightings.judged = total;
        }
        drop(sightings);
        core.round_trips.remember(link.remote(), stats.path.min_rtt);
    }
    // Whoever takes parity sends it too.
    core.salvage.take_from(takers);
}

/// Decides whether what goes there is copied. False if too little was seen to decide by.
fn copy(core: &Core, link: &Link, sight: &Sight, now: Instant) -> bool {
    let remote = link.remote();
    let until = now + PROTECTED;
    match (link.copying(), judge(sight)) {
        (Copying::Never, _) => core.copies.leave(remote),
        (_, Advice::Full) => core.copies.leave(remote),
        (Copying::Always, _) | (Copying::Auto, Advice::Protect) => {
            core.copies.protect(remote, link.takes_parity(), now, until);
        }
        (Copying::Auto, Advice::Wait) => return false,
        // While it is protected loss does not show: its time ends by itself.
        (Copying::Auto, Advice::Leave) => {}
    }
    true
}

/// Copies from the first packet on, where that is pinned.
pub(crate) fn begin(core: &Core, copying: Copying, remote: SocketAddr) {
    if copying == Copying::Always {
        let now = Instant::now();
        core.copies.protect(remote, false, now, now + PROTECTED);
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

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_path_is_named_by_what_it_shows() {
        for (what, rtt, min, loss, expected) in [
            ("a rack", 1, 1, Some(0.0), Measured::Dc),
            ("nothing known of loss", 1, 1, None, Measured::Dc),
            ("another region", 81, 80, Some(0.0), Measured::Wan),
            ("one percent", 81, 80, Some(0.01), Measured::Lossy),
            ("one percent in a rack", 1, 1, Some(0.01), Measured::Lossy),
            ("a third", 81, 80, Some(0.33), Measured::Broken),
            ("a queue", 140, 80, Some(0.01), Measured::Full),
        ] {
            let measured = measure(MS * rtt, MS * min, loss);
            assert_eq!(measured, expected, "{what}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn loss_is_that_of_the_last_ten_seconds_and_silence_that_since_the_last_datagram() {
        let began = Instant::now();
        let mut sightings = Sightings::new(began);
        let at = |second: u32| began + LOOK * second;
        let remote = SocketAddr::from(([10, 0, 0, 1], 1));
        let look = |sent, lost, heard| Look {
            total: Seen { sent, lost },
            heard,
            challenged: 0,
            remote,
        };
        for second in 0..30 {
            // A third is lost in the first ten seconds, nothing afterwards.
            let n = u64::from(second);
            sightings.look(at(second), look(n * 100, n.min(10) * 33, n.min(25)));
            assert!(
                sightings.recent.len() <= RECENT + 1,
                "the memory is bounded"
            );
            if second == 9 {
                let loss = sightings.recent_loss(Seen {
                    sent: 900,
                    lost: 297,
                });
                assert_eq!(loss, Some(0.33));
            }
        }
        let total = Seen {
            sent: 2_900,
            lost: 330,
        };
        assert_eq!(sightings.recent_loss(total), Some(0.0));
        assert_eq!(sightings.silent(at(29), 25), LOOK * 4);
        assert_eq!(sightings.silent(at(29), 26), Duration::ZERO);
        assert_eq!(sightings.migrations(), 0);
        let elsewhere = SocketAddr::from(([10, 0, 0, 2], 1));
        sightings.look(
            at(30),
            Look {
                remote: elsewhere,
                ..look(2_900, 330, 26)
            },
        );
        sightings.look(
            at(31),
            Look {
                remote: elsewhere,
                challenged: 2,
                ..look(2_900, 330, 26)
            },
        );
        sightings.look(
            at(32),
            Look {
                remote: elsewhere,
                challenged: 2,
                ..look(2_900, 330, 26)
            },
        );
        assert_eq!(sightings.migrations(), 2, "the peer's move, and our own");
    }

    #[test]
    fn round_trips_are_remembered_within_bounds() {
        let known = RoundTrips::default();
        for n in 0..u16::MAX {
            known.remember(SocketAddr::from(([10, 0, 0, 1], n)), MS * 80);
        }
        assert!(known.lock().len() <= MOST_REMEMBERED);
        let last = SocketAddr::from(([10, 0, 0, 1], u16::MAX - 1));
        assert_eq!(known.of(last), Some(MS * 80));
        known.remember(last, Duration::ZERO);
        assert_eq!(known.of(last), Some(LEAST_RTT));
        assert_eq!(known.of(SocketAddr::from(([10, 0, 0, 2], 1))), None);
    }
}
