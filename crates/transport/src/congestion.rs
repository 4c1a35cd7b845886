//! Congestion control for paths that lose packets without being full.
//!
//! CUBIC takes every loss for congestion: at 80 ms and 1 % of random loss it carries 2 Mb/s, and a mesh that
//! puts everything on one connection makes that worse. BBR does not, but spoils the tail of a clean link.
//! [`Discerning`] is CUBIC with one question before each loss: *is the path full?* A bottleneck that drops
//! because its queue is full has first delayed what went through that queue. So a loss counts when packets
//! were delayed beyond the path's own round trip, when much is lost (a policer drops without a queue), when the
//! network says so (ECN), or when the path is so short that a full queue cannot be told from noise.
//!
//! Without random loss it is CUBIC, to the byte; beside CUBIC it takes its share, since at a full queue it
//! yields as CUBIC does (`docs/adr/0007-lossy-paths.md` has the figures).

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, Cubic, CubicConfig};
use quinn_proto::RttEstimator;

use crate::steer::Losses;

/// Below this round trip every loss counts: queues of a data centre are a fraction of a millisecond, and a
/// loss there is congestion.
const SHORT_PATH: Duration = Duration::from_millis(5);
/// Delay beyond the path's own that is taken for a queue: this, or a sixteenth of the round trip. Less is
/// jitter and delayed acknowledgements.
const LEAST_QUEUE: Duration = Duration::from_millis(3);
const QUEUE_SHARE: u32 = 16;
/// Packets of a round whose shortest round trip is worth a judgement (as HyStart, RFC 9406 §4.3).
const ENOUGH: u32 = 8;
/// Loss above this share counts as congestion whatever the delay says.
const MUCH: f64 = 0.10;
/// Bytes over which that share is taken; fewer say nothing. At 1,200 bytes a packet, 2 % of independent loss
/// stays below [`MUCH`] by nine standard deviations.
const JUDGED: u64 = 300_000;

/// Makes a [`Discerning`] for each path.
#[derive(Debug, Default)]
pub(crate) struct DiscerningConfig {
    cubic: Arc<CubicConfig>,
    losses: Arc<Losses>,
}

impl DiscerningConfig {
    /// Counts into `losses` how each loss is judged.
    pub(crate) fn new(losses: Arc<Losses>) -> Self {
        Self {
            cubic: Arc::default(),
            losses,
        }
    }
}

impl ControllerFactory for DiscerningConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Discerning {
            cubic: Cubic::new(self.cubic.clone(), now, current_mtu),
            signs: Signs::new(now),
            slow_start: true,
            losses: self.losses.clone(),
        })
    }
}

/// CUBIC that does not slow down for loss which is not congestion.
#[derive(Debug, Clone)]
pub(crate) struct Discerning {
    cubic: Cubic,
    signs: Signs,
    /// Until the first congestion: the window doubles each round trip, as long as no queue shows.
    slow_start: bool,
    losses: Arc<Losses>,
}

impl Controller for Discerning {
    fn on_ack(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        app_limited: bool,
        rtt: &RttEstimator,
    ) {
        self.signs
            .acknowledged(now, sent, bytes, rtt.min(), rtt.get());
        // Doubling on until a loss would lose a window's worth: what is there already fills the path.
        let hold = self.slow_start && self.signs.is_filling();
        self.cubic
            .on_ack(now, sent, bytes, app_limited || hold, rtt);
    }

    fn on_congestion_event(
        &mut self,
        now: Instant,
        sent: Instant,
        is_persistent_congestion: bool,
        lost_bytes: u64,
    ) {
        self.signs.lost(lost_bytes);
        let explicit = lost_bytes == 0;
        let counts = explicit || is_persistent_congestion || self.signs.is_congestion();
        self.losses.judged(counts);
        if counts {
            self.congested(now, sent, is_persistent_congestion, lost_bytes);
        }
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.cubic.window()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(self.clone())
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

impl Discerning {
    fn congested(&mut self, now: Instant, sent: Instant, persistent: bool, lost_bytes: u64) {
        self.slow_start = false;
        self.cubic
            .on_congestion_event(now, sent, persistent, lost_bytes);
    }
}

/// What the path shows. Pure: time is an argument.
#[derive(Debug, Clone)]
struct Signs {
    /// The shortest round trip of the connection.
    base: Duration,
    /// The shortest of this round and of the one before: jitter lengthens some packets, a queue all of them.
    this_round: Duration,
    last_round: Duration,
    /// Packets of this round.
    seen: u32,
    round_ends: Instant,
    acknowledged: u64,
    lost: u64,
}

impl Signs {
    fn new(now: Instant) -> Self {
        Self {
            base: Duration::MAX,
            this_round: Duration::MAX,
            last_round: Duration::MAX,
            seen: 0,
            round_ends: now,
            acknowledged: 0,
            lost: 0,
        }
    }

    fn acknowledged(
        &mut self,
        now: Instant,
        sent: Instant,
        bytes: u64,
        base: Duration,
        rtt: Duration,
    ) {
        let took = now.saturating_duration_since(sent);
        self.base = base.min(took);
        if now >= self.round_ends {
            self.last_round = self.this_round;
            self.this_round = took;
            self.seen = 1;
            self.round_ends = now + rtt;
        } else {
            self.this_round = self.this_round.min(took);
            self.seen += 1;
        }
        self.acknowledged += bytes;
        self.age();
    }

    fn lost(&mut self, bytes: u64) {
        self.lost += bytes;
        self.age();
    }

    /// Halves what is known of loss, so that it is of the last few hundred packets.
    fn age(&mut self) {
        if self.acknowledged + self.lost >= 2 * JUDGED {
            self.acknowledged /= 2;
            self.lost /= 2;
        }
    }

    /// Whether packets wait in a queue on the path.
    fn is_queueing(&self) -> bool {
        self.waited(self.this_round.min(self.last_round))
    }

    /// Whether a queue begins to build: seen a round trip earlier, from fewer packets.
    fn is_filling(&self) -> bool {
        self.seen >= ENOUGH && self.waited(self.this_round)
    }

    fn waited(&self, least: Duration) -> bool {
        let waited = least.saturating_sub(self.base);
        least != Duration::MAX && waited > LEAST_QUEUE.max(self.base / QUEUE_SHARE)
    }

    /// Whether a loss now means that the path is full.
    fn is_congestion(&self) -> bool {
        let known = self.acknowledged + self.lost;
        let much = known >= JUDGED && self.lost as f64 > MUCH * known as f64;
        self.base < SHORT_PATH || self.is_queueing() || much
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Signs of a path of 80 ms after `rounds` rounds in which each packet took `took`.
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn after(rounds: u32, took: Duration) -> Signs {
        let began = Instant::now();
        let (mut signs, base) = (Signs::new(began), 80 * MS);
        for round in 0..rounds {
            for packet in 0..10 {
                let sent = began + round * base + packet * MS;
                let least = if round == 0 { base } else { took };
                signs.acknowledged(sent + least, sent, 1_200, base, base);
            }
        }
        signs
    }

    #[test]
    fn a_loss_on_a_path_without_a_queue_is_not_congestion() {
        assert!(!after(10, 80 * MS).is_congestion());
        assert!(!after(10, 84 * MS).is_congestion(), "a little jitter");
    }

    #[test]
    fn a_loss_after_packets_waited_is_congestion() {
        assert!(after(10, 90 * MS).is_congestion());
        assert!(
            !after(2, 90 * MS).is_congestion(),
            "one round may be chance"
        );
        assert!(after(3, 90 * MS).is_congestion());
    }

    #[test]
    fn much_loss_is_congestion_and_a_little_is_not() {
        let mut signs = after(10, 80 * MS);
        for _ in 0..500 {
            signs.acknowledged += 97 * 1_200;
            signs.lost(3 * 1_200);
            assert!(!signs.is_congestion(), "three of a hundred");
        }
        for _ in 0..20 {
            signs.acknowledged += 80 * 1_200;
            signs.lost(20 * 1_200);
        }
        assert!(signs.is_congestion(), "one of five, as from a policer");
        assert!(
            signs.acknowledged + signs.lost < 2 * JUDGED,
            "the memory is bounded"
        );
    }

    #[test]
    fn on_a_short_path_every_loss_is_congestion() {
        let mut signs = after(10, 80 * MS);
        signs.base = MS;
        signs.this_round = MS;
        assert!(signs.is_congestion());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "any instant will do")]
    fn the_window_shrinks_for_congestion_only() {
        let now = Instant::now();
        let factory = Arc::new(DiscerningConfig::default());
        let mut controller = Discerning {
            cubic: Cubic::new(factory.cubic.clone(), now, 1_200),
            signs: after(10, 80 * MS),
            slow_start: true,
            losses: Arc::default(),
        };
        let before = controller.window();
        controller.on_congestion_event(now, now, false, 1_200);
        assert_eq!(controller.window(), before, "random loss");
        controller.on_congestion_event(now, now, false, 0);
        assert!(controller.window() < before, "ECN is a word of the network");
        let mut controller = Discerning {
            signs: after(10, 95 * MS),
            ..controller
        };
        let before = controller.window();
        controller.on_congestion_event(now + MS, now + MS, false, 1_200);
        assert!(controller.window() < before, "a full queue");
        assert_eq!(
            (controller.losses.random(), controller.losses.congestion()),
            (1, 2)
        );
    }
}
