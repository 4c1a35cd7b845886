//! Which paths let no UDP through: bounded, forgotten after a while, and pure (time and randomness are arguments).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;

use crate::Carrier;
use crate::race::Plan;

/// How long QUIC is tried alone. A handshake takes one round trip and TCP's way three: also over the longest path
/// QUIC comes first where it passes.
const HEAD_START: Duration = Duration::from_millis(250);
/// A path is thought of as blocked, or as on probation, for so long after the last sign of it.
const MEMORY: Duration = Duration::from_secs(600);
/// Somebody who fell silent over QUIC may be dead, or cut off from UDP: for so long both ways are tried at once.
const SUSPICION: Duration = Duration::from_secs(10);
/// QUIC that falls silent within this time of its return was not worth returning to: what lets its handshakes
/// through and then drops it must not make connections flap.
const PROBATION: Duration = Duration::from_secs(60);
/// First and longest wait between probes, each of them somewhere between half of it and the whole.
const PROBES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The same where QUIC was returned to and broke again: each such return costs requests some seconds.
const CAUTIOUS_PROBES: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(600));

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Blocked,
    Suspect,
    Returned(Instant),
}

#[derive(Debug)]
struct Path {
    state: State,
    /// Probes since UDP last proved good.
    probes: u32,
    /// Times that it proved good and broke again soon.
    broken: u32,
    forget: Instant,
}

/// What was counted, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FallbackStats {
    /// Addresses that are reached over TCP at present, as far as is remembered.
    pub blocked: u64,
    /// Dials that TCP won.
    pub to_tcp: u64,
    /// Connections that moved back to QUIC.
    pub to_quic: u64,
    /// Probes for QUIC that nobody answered.
    pub probes_failed: u64,
}

/// What is remembered of paths, by the address that was dialled.
#[derive(Debug)]
pub(crate) struct Fallback {
    paths: BTreeMap<SocketAddr, Path>,
    capacity: usize,
    counts: FallbackStats,
}

impl Fallback {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            paths: BTreeMap::new(),
            capacity,
            counts: FallbackStats::default(),
        }
    }

    /// How to dial.
    pub(crate) fn plan(&self, addr: SocketAddr, now: Instant) -> Plan {
        let known = self.paths.get(&addr).filter(|path| now < path.forget);
        let (first, lead) = match known.map(|path| path.state) {
            Some(State::Blocked) => (Carrier::Tcp, HEAD_START),
            Some(State::Suspect) => (Carrier::Quic, Duration::ZERO),
            Some(State::Returned(_)) | None => (Carrier::Quic, HEAD_START),
        };
        Plan { first, lead }
    }

    /// TCP won a dial.
    pub(crate) fn tcp_won(&mut self, addr: SocketAddr, now: Instant) {
        self.counts.to_tcp += 1;
        self.set(addr, State::Blocked, now, now + MEMORY);
    }

    /// QUIC won a dial.
    pub(crate) fn quic_won(&mut self, addr: SocketAddr, now: Instant) {
        match self.paths.get(&addr).map(|path| path.state) {
            Some(State::Blocked | State::Suspect) => {
                self.set(addr, State::Returned(now), now, now + MEMORY);
            }
            Some(State::Returned(_)) | None => {}
        }
    }

    /// A probe came through, and the connection over TCP makes room.
    pub(crate) fn returned(&mut self, addr: SocketAddr, now: Instant) {
        self.counts.to_quic += 1;
        self.set(addr, State::Returned(now), now, now + MEMORY);
    }

    /// A QUIC connection ended because nothing arrived any more.
    pub(crate) fn fell_silent(&mut self, addr: SocketAddr, now: Instant) {
        match self.paths.get(&addr).map(|path| path.state) {
            Some(State::Returned(at)) if now.duration_since(at) < PROBATION => {
                self.set(addr, State::Blocked, now, now + MEMORY);
                if let Some(path) = self.paths.get_mut(&addr) {
                    path.broken = path.broken.saturating_add(1);
                }
            }
            Some(State::Blocked) => {}
            _ => {
                self.paths.remove(&addr);
                self.set(addr, State::Suspect, now, now + SUSPICION);
            }
        }
    }

    /// How long to wait for the next probe. `draw` is 64 random bits.
    pub(crate) fn probe_in(&mut self, addr: SocketAddr, now: Instant, draw: u64) -> Duration {
        let known = self.paths.get(&addr);
        let (probes, broken) = known.map_or((0, 0), |path| (path.probes, path.broken));
        let (doublings, (first, most)) = match broken {
            0 => (probes, PROBES),
            again => (again - 1, CAUTIOUS_PROBES),
        };
        let longest = first.saturating_mul(1 << doublings.min(16)).min(most);
        // It is still in use: what is known of it is not forgotten before the next probe.
        self.set(addr, State::Blocked, now, now + MEMORY + longest);
        if let Some(path) = self.paths.get_mut(&addr) {
            path.probes = probes.saturating_add(1);
        }
        longest.mul_f64(0.5 + 0.5 * (draw as f64 / u64::MAX as f64))
    }

    pub(crate) fn probe_failed(&mut self) {
        self.counts.probes_failed += 1;
    }

    pub(crate) fn stats(&self, now: Instant) -> FallbackStats {
        let blocked = |path: &&Path| path.state == State::Blocked && now < path.forget;
        FallbackStats {
            blocked: self.paths.values().filter(blocked).count() as u64,
            ..self.counts
        }
    }

    fn set(&mut self, addr: SocketAddr, state: State, now: Instant, forget: Instant) {
        self.make_room(&addr, now);
        let known = self.paths.get(&addr);
        let (probes, broken) = known.map_or((0, 0), |path| (path.probes, path.broken));
        let path = Path {
            state,
            probes,
            broken,
            forget,
        };
        self.paths.insert(addr, path);
    }

    fn make_room(&mut self, addr: &SocketAddr, now: Instant) {
        self.paths.retain(|_, path| now < path.forget);
        if self.paths.len() < self.capacity || self.paths.contains_key(addr) {
            return;
        }
        let soonest = self.paths.iter().min_by_key(|(_, path)| path.forget);
        if let Some(addr) = soonest.map(|(addr, _)| *addr) {
            self.paths.remove(&addr);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn a_path_is_remembered_for_ten_minutes_and_for_as_long_as_it_is_probed() {
        let (mut paths, now) = (Fallback::new(8), Instant::now());
        let quic = Plan {
            first: Carrier::Quic,
            lead: HEAD_START,
        };
        assert_eq!(paths.plan(addr(1), now), quic);
        paths.tcp_won(addr(1), now);
        assert_eq!(paths.plan(addr(1), now).first, Carrier::Tcp);
        assert_eq!(paths.plan(addr(2), now), quic, "another path");
        let later = now + SECOND * 500;
        paths.probe_in(addr(1), later, 0);
        assert_eq!(paths.plan(addr(1), now + SECOND * 601).first, Carrier::Tcp);
        let end = later + SECOND * 2 + MEMORY;
        assert_eq!(paths.plan(addr(1), end), quic, "forgotten");
        assert_eq!(paths.stats(now).blocked, 1);
        paths.returned(addr(1), later);
        assert_eq!(paths.plan(addr(1), later), quic);
        let stats = FallbackStats {
            blocked: 0,
            to_tcp: 1,
            to_quic: 1,
            probes_failed: 0,
        };
        assert_eq!(paths.stats(later), stats);
    }

    #[tokio::test(start_paused = true)]
    async fn probes_become_rare_and_their_wait_is_drawn_from_the_upper_half() {
        let (mut paths, now) = (Fallback::new(8), Instant::now());
        paths.tcp_won(addr(1), now);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let wait = paths.probe_in(addr(1), now, u64::MAX);
            assert_eq!(wait, SECOND * seconds);
        }
        assert_eq!(paths.probe_in(addr(1), now, 0), SECOND * 30);
    }

    #[tokio::test(start_paused = true)]
    async fn who_falls_silent_is_tried_both_ways_at_once_for_a_while() {
        let (mut paths, now) = (Fallback::new(8), Instant::now());
        paths.fell_silent(addr(1), now);
        assert_eq!(paths.plan(addr(1), now).lead, Duration::ZERO);
        assert_eq!(paths.plan(addr(1), now + SUSPICION).lead, HEAD_START);
        paths.quic_won(addr(1), now);
        assert_eq!(paths.plan(addr(1), now).lead, HEAD_START, "it is back");
    }

    #[tokio::test(start_paused = true)]
    async fn quic_whose_handshakes_pass_and_which_falls_silent_twice_is_blocked() {
        let (mut paths, now) = (Fallback::new(8), Instant::now());
        paths.fell_silent(addr(1), now);
        paths.quic_won(addr(1), now);
        paths.fell_silent(addr(1), now + SECOND * 3);
        let plan = paths.plan(addr(1), now + SECOND * 3);
        assert_eq!(plan.first, Carrier::Tcp);
    }

    #[tokio::test(start_paused = true)]
    async fn quic_that_breaks_again_soon_is_probed_ever_more_rarely() {
        let (mut paths, mut now) = (Fallback::new(8), Instant::now());
        paths.tcp_won(addr(1), now);
        for expected in [1, 30, 60, 120, 240, 480, 600] {
            assert_eq!(paths.probe_in(addr(1), now, u64::MAX), SECOND * expected);
            paths.returned(addr(1), now);
            now += SECOND * 5;
            paths.fell_silent(addr(1), now);
            assert_eq!(paths.plan(addr(1), now).first, Carrier::Tcp);
        }
        paths.returned(addr(1), now);
        now += PROBATION;
        paths.fell_silent(addr(1), now);
        assert_eq!(
            paths.plan(addr(1), now).first,
            Carrier::Quic,
            "it has worked for a minute: this is another story"
        );
        assert_eq!(paths.probe_in(addr(1), now, u64::MAX), SECOND);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let (mut paths, now) = (Fallback::new(2), Instant::now());
        for port in 0..100 {
            paths.tcp_won(addr(port), now + SECOND * u32::from(port));
        }
        assert_eq!(paths.paths.len(), 2);
        let now = now + SECOND * 99;
        assert_eq!(paths.plan(addr(99), now).first, Carrier::Tcp, "the newest");
    }
}
