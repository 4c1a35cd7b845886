//! Tail protection below what retransmission can give: on a path that loses packets at random, each datagram
//! of sparse traffic is sent once more a few milliseconds later, and denser traffic gets parity ([`crate::parity`]).
//!
//! A lost packet costs its request a round trip and more. A copy costs bytes, and QUIC needs to know nothing of
//! it: a receiver drops what it has seen by its packet number (RFC 9000 §12.3), after it has authenticated it.
//! At 1 % of loss two copies leave 0.01 %, and the tail falls to the path's own round trip. Above [`SPARSE`] nothing is
//! copied: what is sent together gets parity, up to [`DENSE`] and for peers that take it.
//!
//! Neither is for a full link: [`crate::paths`] says where it helps, this module keeps to the budget, and
//! [`crate::copy_socket`] does it.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::udp::{EcnCodepoint, Transmit};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::parity::Group;

/// A copy follows so much later: long enough to miss a burst of loss of some packets, short enough to be of use
/// (tried in virtual time: 1 to 10 ms are alike under independent loss).
const LATER: Duration = Duration::from_millis(3);
/// Bytes in [`WINDOW`] up to which traffic is sparse: 10 Mb/s.
const SPARSE: u64 = 125_000;
/// The same up to which there is parity: 40 Mb/s. Beyond it is a bulk, which a lost packet hardly delays.
const DENSE: u64 = 500_000;
/// Parity covers what is sent within this time.
const TOGETHER: Duration = Duration::from_millis(2);
/// Bytes of parity for a hundred bytes of what it is for, at most.
const PARITY_PERCENT: u64 = 15;
/// Bytes of parity that can be saved up for.
const MOST_SAVED: u64 = 4_096;
const WINDOW: Duration = Duration::from_millis(100);
/// A larger datagram is a probe of the path's MTU, or part of a bulk.
const LARGEST: usize = 1_500;
/// Bytes of copies that wait, on all paths together.
const MOST_WAITING: usize = 1 << 20;

/// What was sent beside what QUIC sends, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Datagrams, or batches of them, that were sent twice.
    pub sends: u64,
    /// UDP payload of copies, in bytes.
    pub bytes: u64,
    /// UDP payload of parity, in bytes.
    pub parity_bytes: u64,
    /// Datagrams of peers that were lost and made again from their parity.
    pub made: u64,
}

/// Where copies are wanted, and those that wait.
#[derive(Default)]
pub(crate) struct Copies {
    /// Spares the lock where no path needs copies, as in a data centre.
    any: AtomicBool,
    state: Mutex<State>,
    pub(crate) more: Notify,
    sends: AtomicU64,
    bytes: AtomicU64,
    parity_bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    paths: BTreeMap<SocketAddr, Protected>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
    /// Groups so far, for their numbers.
    groups: u16,
}

/// A path on which something is sent beside what QUIC sends.
struct Protected {
    budget: Budget,
    /// Whether the peer takes parity.
    takes_parity: bool,
    /// Bytes that parity may take.
    saved: u64,
    group: Option<Growing>,
}

/// What was sent together, and gets parity when no more comes.
struct Growing {
    group: Group,
    due: Instant,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
}

/// What is sent beside, when it is due.
pub(crate) struct Waiting {
    due: Instant,
    pub(crate) contents: Bytes,
    pub(crate) segment_size: Option<usize>,
    pub(crate) destination: SocketAddr,
    pub(crate) ecn: Option<EcnCodepoint>,
    pub(crate) src_ip: Option<IpAddr>,
    pub(crate) is_parity: bool,
}

/// What protects some bytes that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protection {
    Copy,
    Parity,
    Nothing,
}

/// How much of a path's traffic is copied. Pure: time is an argument.
#[derive(Debug, Clone)]
struct Budget {
    until: Instant,
    window_began: Instant,
    this_window: u64,
    last_window: u64,
}

impl Budget {
    fn new(now: Instant, until: Instant) -> Self {
        Self {
            until,
            window_began: now,
            this_window: 0,
            last_window: 0,
        }
    }

    /// Counts `bytes` that were sent, and says what protects them.
    fn spend(&mut self, now: Instant, bytes: usize) -> Protection {
        let passed = now.saturating_duration_since(self.window_began);
        if passed >= WINDOW {
            self.last_window = if passed < 2 * WINDOW {
                self.this_window
            } else {
                0
            };
            self.this_window = 0;
            self.window_began = now;
        }
        self.this_window += bytes as u64;
        let most = self.this_window.max(self.last_window);
        if now >= self.until || most > DENSE {
            Protection::Nothing
        } else if self.last_window > SPARSE {
            Protection::Parity
        } else if self.this_window <= SPARSE {
            Protection::Copy
        } else {
            // It may be a bulk that begins.
            Protection::Nothing
        }
    }
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one call that does not panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Protects what goes to `path` until then. Paths whose time is over are forgotten.
    pub(crate) fn protect(
        &self,
        path: SocketAddr,
        takes_parity: bool,
        now: Instant,
        until: Instant,
    ) {
        let mut state = self.lock();
        state.paths.retain(|_, path| path.budget.until > now);
        let protected = state.paths.entry(path).or_insert_with(|| Protected {
            budget: Budget::new(now, until),
            takes_parity,
            saved: 0,
            group: None,
        });
        protected.budget.until = until;
        protected.takes_parity = takes_parity;
        self.any.store(true, Ordering::Release);
    }

    /// The path is full, or carries everything.
    pub(crate) fn leave(&self, path: SocketAddr) {
        let mut state = self.lock();
        state.paths.remove(&path);
        self.any.store(!state.paths.is_empty(), Ordering::Release);
    }

    pub(crate) fn is_protected(&self, path: SocketAddr, now: Instant) -> bool {
        self.any.load(Ordering::Acquire)
            && self
                .lock()
                .paths
                .get(&path)
                .is_some_and(|path| now < path.budget.until)
    }

    /// What was sent so far; the receiver's part is left out.
    pub(crate) fn copied(&self) -> Copied {
        Copied {
            sends: self.sends.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            parity_bytes: self.parity_bytes.load(Ordering::Relaxed),
            made: 0,
        }
    }

    /// It was sent.
    pub(crate) fn count(&self, sent: &Waiting) {
        let bytes = sent.contents.len() as u64;
        if sent.is_parity {
            self.parity_bytes.fetch_add(bytes, Ordering::Relaxed);
        } else {
            self.sends.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// Whether any path is protected: else nothing needs to be told.
    pub(crate) fn is_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// QUIC has sent something.
    pub(crate) fn sent(&self, transmit: &Transmit<'_>) {
        let single = transmit.segment_size.unwrap_or(transmit.contents.len());
        let now = Instant::now();
        let mut state = self.lock();
        let state = &mut *state;
        let Some(path) = state.paths.get_mut(&transmit.destination) else {
            return;
        };
        let wanted = path.budget.spend(now, transmit.contents.len());
        if single > LARGEST || wanted == Protection::Nothing {
            return;
        }
        let takes_parity = path.takes_parity;
        let was_idle = state.waiting.is_empty();
        let began = match wanted {
            Protection::Parity => takes_parity && state.add(transmit, now),
            _ => {
                state.copy(transmit, now + LATER);
                false
            }
        };
        if began || (was_idle && !state.waiting.is_empty()) {
            self.more.notify_one();
        }
    }

    /// The first that waits, if it is due; else when it will be.
    pub(crate) fn next(&self, now: Instant) -> Result<Waiting, Option<Instant>> {
        let mut state = self.lock();
        let group_due = state.close_groups(now);
        match state.waiting.front() {
            Some(first) if first.due <= now => {
                let first = state.waiting.pop_front().ok_or(None)?;
                state.waiting_bytes -= first.contents.len();
                Ok(first)
            }
            first => Err(first
                .map(|first| first.due)
                .into_iter()
                .chain(group_due)
                .min()),
        }
    }
}

impl State {
    fn has_room(&self, bytes: usize) -> bool {
        self.waiting_bytes + bytes <= MOST_WAITING
    }

    fn copy(&mut self, transmit: &Transmit<'_>, due: Instant) {
        if self.has_room(transmit.contents.len()) {
            self.waiting_bytes += transmit.contents.len();
            self.waiting.push_back(Waiting {
                due,
                contents: Bytes::copy_from_slice(transmit.contents),
                segment_size: transmit.segment_size,
                destination: transmit.destination,
                ecn: transmit.ecn,
                src_ip: transmit.src_ip,
                is_parity: false,
            });
        }
    }

    /// Takes what was sent into its path's group. True if that began with it: somebody must wait for its end.
    fn add(&mut self, transmit: &Transmit<'_>, now: Instant) -> bool {
        let single = transmit.segment_size.unwrap_or(transmit.contents.len());
        let mut began = false;
        for datagram in transmit.contents.chunks(single.max(1)) {
            let Some(path) = self.paths.get_mut(&transmit.destination) else {
                return began;
            };
            let earned = datagram.len() as u64 * PARITY_PERCENT;
            path.saved = (path.saved + earned).min(MOST_SAVED * 100);
            let growing = path.group.get_or_insert_with(|| {
                began = true;
                Growing {
                    group: Group::default(),
                    due: now + TOGETHER,
                    ecn: transmit.ecn,
                    src_ip: transmit.src_ip,
                }
            });
            growing.group.add(datagram);
            if growing.group.is_full() {
                self.close(transmit.destination, now);
            }
        }
        began
    }

    /// Closes the groups whose time is over, and says when the next one's is.
    fn close_groups(&mut self, now: Instant) -> Option<Instant> {
        let due = |(path, protected): (&SocketAddr, &Protected)| {
            protected.group.as_ref().map(|group| (group.due, *path))
        };
        while let Some((due, path)) = self.paths.iter().filter_map(due).min() {
            if due > now {
                return Some(due);
            }
            self.close(path, now);
        }
        None
    }

    /// Makes parity of a path's group, if that is worth it and within its budget.
    fn close(&mut self, destination: SocketAddr, now: Instant) {
        let Some(path) = self.paths.get_mut(&destination) else {
            return;
        };
        let Some(Growing {
            group, ecn, src_ip, ..
        }) = path.group.take()
        else {
            return;
        };
        let cost = group.cost() as u64 * 100;
        if !group.is_worth_it() || path.saved < cost {
            return;
        }
        path.saved -= cost;
        self.groups = self.groups.wrapping_add(1);
        for piece in group.pieces(self.groups).into_iter().rev() {
            if self.has_room(piece.len()) {
                self.waiting_bytes += piece.len();
                // Before the copies, which are due later.
                self.waiting.push_front(Waiting {
                    due: now,
                    contents: piece.into(),
                    segment_size: None,
                    destination,
                    ecn,
                    src_ip,
                    is_parity: true,
                });
            }
        }
    }
}

impl fmt::Debug for Copies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copies")
            .field("copied", &self.copied())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn sparse_traffic_is_copied_and_a_bulk_is_not() {
        let now = Instant::now();
        let mut sparse = Budget::new(now, now + 1_000 * WINDOW);
        for n in 0..2_000 {
            assert_eq!(
                sparse.spend(now + 5 * MS * n, 1_200),
                Protection::Copy,
                "datagram {n} of 2 Mb/s"
            );
        }
        let mut bulk = Budget::new(now, now + 1_000 * WINDOW);
        let all: Vec<_> = (0..2_000)
            .map(|n| bulk.spend(now + MS * n, 12_000))
            .collect();
        let count = |of| all.iter().filter(|given| **given == of).count();
        let (copied, parity) = (count(Protection::Copy), count(Protection::Parity));
        assert!(copied <= 11, "of 96 Mb/s only the first moment: {copied}");
        assert_eq!(parity, 0, "of 96 Mb/s nothing");
        let mut dense = Budget::new(now, now + 1_000 * WINDOW);
        let parity = (0..2_000)
            .filter(|n| dense.spend(now + 5 * MS * *n, 10_700) == Protection::Parity)
            .count();
        assert!(parity > 1_900, "messages of 10 KiB: {parity} of 2,000");
    }

    #[tokio::test(start_paused = true)]
    async fn protection_ends_and_a_pause_makes_a_bulk_sparse_again() {
        let now = Instant::now();
        let mut budget = Budget::new(now, now + 10 * WINDOW);
        assert_eq!(budget.spend(now, 600_000), Protection::Nothing);
        let next = budget.spend(now + WINDOW, 100);
        assert_eq!(next, Protection::Nothing, "the window before was full");
        assert_eq!(budget.spend(now + 4 * WINDOW, 100), Protection::Copy);
        let later = budget.spend(now + 10 * WINDOW, 100);
        assert_eq!(later, Protection::Nothing, "its time is over");
    }

    #[tokio::test(start_paused = true)]
    async fn only_protected_paths_cost_anything_and_the_waiting_are_bounded() {
        let copies = Copies::default();
        let (now, path) = (Instant::now(), SocketAddr::from(([10, 0, 0, 1], 1)));
        let transmit = |contents| Transmit {
            destination: path,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        };
        copies.sent(&transmit(&[0; 1_200]));
        assert!(
            copies.next(now + LATER).is_err(),
            "nobody asked for copies there"
        );
        copies.protect(path, false, now, now + WINDOW);
        assert!(copies.is_protected(path, now));
        copies.sent(&transmit(&[0; 1_200]));
        copies.sent(&transmit(&[0; 9_000]));
        assert!(copies.next(now).is_err(), "not yet due");
        assert_eq!(
            copies.next(now + LATER).map(|w| w.contents.len()).ok(),
            Some(1_200)
        );
        assert!(
            copies.next(now + LATER).is_err(),
            "a probe of the MTU is not copied"
        );
        for n in 0..2_000 {
            copies.protect(path, false, now, now + WINDOW);
            copies
                .lock()
                .paths
                .values_mut()
                .for_each(|path| path.budget = Budget::new(now, now + WINDOW));
            copies.sent(&transmit(&[0; 1_200]));
            assert!(copies.lock().waiting_bytes <= MOST_WAITING, "after {n}");
        }
        copies.leave(path);
        assert!(!copies.is_protected(path, now) && !copies.any.load(Ordering::Acquire));
    }
    #[tokio::test(start_paused = true)]
    async fn denser_traffic_gets_parity_within_its_budget_and_bulks_get_nothing() {
        let path = SocketAddr::from(([10, 0, 0, 1], 1));
        for (bytes, gets) in [(10_700usize, true), (80_000, false)] {
            let copies = Copies::default();
            let begin = Instant::now();
            copies.protect(path, true, begin, begin + 1_000 * WINDOW);
            let (mut sent, mut parity, mut now) = (0, 0, begin);
            let message = vec![0x55; bytes];
            for _ in 0..1_000 {
                copies.sent(&Transmit {
                    destination: path,
                    ecn: None,
                    contents: &message,
                    segment_size: Some(1_452),
                    src_ip: None,
                });
                sent += bytes;
                // A message each 5 ms, and what waits is sent as it becomes due.
                tokio::time::advance(5 * MS).await;
                now += 5 * MS;
                while let Ok(waiting) = copies.next(now) {
                    if waiting.is_parity {
                        assert!(waiting.contents.len() <= 1_452);
                        parity += waiting.contents.len();
                    }
                }
            }
            let share = parity as f64 / sent as f64;
            assert_eq!(share > 0.1, gets, "{share} of {sent}");
            assert!(share <= 0.15, "{share} of {sent}");
            assert_eq!(copies.lock().waiting_bytes, 0);
        }
    }
}
