//! Tail protection below what retransmission can give: on a path that loses packets at random, each datagram
//! of sparse traffic is sent once more a few milliseconds later.
//!
//! A lost packet costs its request a round trip and more. A copy costs bytes, and QUIC needs to know nothing of
//! it: a receiver drops what it has seen by its packet number (RFC 9000 §12.3), after it has authenticated it.
//! At 1 % of loss two copies leave 0.01 %, and the tail falls to the path's own round trip.
//!
//! It is for small messages only, and never on a full link: [`crate::paths`] says where it helps, this module
//! keeps to the budget. Above [`SPARSE`] nothing is copied.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// A copy follows so much later: long enough to miss a burst of loss of some packets, short enough to be of use
/// (tried in virtual time: 1 to 10 ms are alike under independent loss).
const LATER: Duration = Duration::from_millis(3);
/// Bytes in [`WINDOW`] up to which traffic is sparse: 10 Mb/s.
const SPARSE: u64 = 125_000;
const WINDOW: Duration = Duration::from_millis(100);
/// A larger datagram is a probe of the path's MTU, or part of a bulk.
const LARGEST: usize = 1_500;
/// Bytes of copies that wait, on all paths together.
const MOST_WAITING: usize = 1 << 20;

/// What was copied since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    /// Datagrams, or batches of them.
    pub sends: u64,
    /// UDP payload, in bytes.
    pub bytes: u64,
}

/// A socket that sends some datagrams twice.
pub(crate) struct CopySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    shared: Arc<Copies>,
}

/// Where copies are wanted, and those that wait.
#[derive(Default)]
pub(crate) struct Copies {
    /// Spares the lock where no path needs copies, as in a data centre.
    any: AtomicBool,
    state: Mutex<State>,
    more: Notify,
    sends: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Default)]
struct State {
    paths: BTreeMap<SocketAddr, Budget>,
    waiting: VecDeque<Waiting>,
    waiting_bytes: usize,
}

struct Waiting {
    due: Instant,
    contents: Bytes,
    segment_size: Option<usize>,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
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

    /// Counts `bytes` that were sent, and says whether they are to be copied.
    fn spend(&mut self, now: Instant, bytes: usize) -> bool {
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
        now < self.until && self.this_window <= SPARSE && self.last_window <= SPARSE
    }
}

impl Copies {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Each change is one call that does not panic half way.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Copies what goes to `path` until then. Paths whose time is over are forgotten.
    pub(crate) fn protect(&self, path: SocketAddr, now: Instant, until: Instant) {
        let mut state = self.lock();
        state.paths.retain(|_, budget| budget.until > now);
        let budget = state
            .paths
            .entry(path)
            .or_insert_with(|| Budget::new(now, until));
        budget.until = until;
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
                .is_some_and(|budget| now < budget.until)
    }

    pub(crate) fn copied(&self) -> Copied {
        Copied {
            sends: self.sends.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        }
    }

    fn sent(&self, transmit: &Transmit<'_>) {
        let single = transmit.segment_size.unwrap_or(transmit.contents.len());
        let now = Instant::now();
        let mut state = self.lock();
        let Some(budget) = state.paths.get_mut(&transmit.destination) else {
            return;
        };
        let wanted = budget.spend(now, transmit.contents.len());
        let room = state.waiting_bytes + transmit.contents.len() <= MOST_WAITING;
        if !wanted || single > LARGEST || !room {
            return;
        }
        state.waiting_bytes += transmit.contents.len();
        state.waiting.push_back(Waiting {
            due: now + LATER,
            contents: Bytes::copy_from_slice(transmit.contents),
            segment_size: transmit.segment_size,
            destination: transmit.destination,
            ecn: transmit.ecn,
            src_ip: transmit.src_ip,
        });
        if state.waiting.len() == 1 {
            self.more.notify_one();
        }
    }

    /// The first that waits, if it is due; else when it will be.
    fn next(&self, now: Instant) -> Result<Waiting, Option<Instant>> {
        let mut state = self.lock();
        match state.waiting.front() {
            Some(first) if first.due <= now => {
                let first = state.waiting.pop_front().ok_or(None)?;
                state.waiting_bytes -= first.contents.len();
                Ok(first)
            }
            first => Err(first.map(|first| first.due)),
        }
    }
}

impl CopySocket {
    pub(crate) fn new(inner: Arc<dyn AsyncUdpSocket>, shared: Arc<Copies>) -> Self {
        Self { inner, shared }
    }
}

/// Sends copies when they are due, until `stop`.
pub(crate) async fn send(
    socket: Arc<dyn AsyncUdpSocket>,
    copies: Arc<Copies>,
    stop: CancellationToken,
) {
    loop {
        let due = match copies.next(Instant::now()) {
            Ok(copy) => {
                let transmit = Transmit {
                    destination: copy.destination,
                    ecn: copy.ecn,
                    contents: &copy.contents,
                    segment_size: copy.segment_size,
                    src_ip: copy.src_ip,
                };
                // One that the kernel has no room for is not worth waiting for.
                if socket.try_send(&transmit).is_ok() {
                    copies.sends.fetch_add(1, Ordering::Relaxed);
                    let bytes = copy.contents.len() as u64;
                    copies.bytes.fetch_add(bytes, Ordering::Relaxed);
                }
                continue;
            }
            Err(due) => due,
        };
        let wait = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => copies.more.notified().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = wait => {}
        }
    }
}

impl AsyncUdpSocket for CopySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)?;
        if self.shared.any.load(Ordering::Acquire) {
            self.shared.sent(transmit);
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

impl fmt::Debug for CopySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopySocket")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
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
            assert!(
                sparse.spend(now + 5 * MS * n, 1_200),
                "datagram {n} of 2 Mb/s"
            );
        }
        let mut bulk = Budget::new(now, now + 1_000 * WINDOW);
        let copied = (0..2_000)
            .filter(|n| bulk.spend(now + MS * *n, 12_000))
            .count();
        assert!(copied <= 11, "of 96 Mb/s only the first moment: {copied}");
    }

    #[tokio::test(start_paused = true)]
    async fn protection_ends_and_a_pause_makes_a_bulk_sparse_again() {
        let now = Instant::now();
        let mut budget = Budget::new(now, now + 10 * WINDOW);
        assert!(!budget.spend(now, 200_000));
        assert!(
            !budget.spend(now + WINDOW, 100),
            "the window before was full"
        );
        assert!(budget.spend(now + 4 * WINDOW, 100));
        assert!(!budget.spend(now + 10 * WINDOW, 100), "its time is over");
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
        copies.protect(path, now, now + WINDOW);
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
            copies.protect(path, now, now + WINDOW);
            copies
                .lock()
                .paths
                .values_mut()
                .for_each(|budget| *budget = Budget::new(now, now + WINDOW));
            copies.sent(&transmit(&[0; 1_200]));
            assert!(copies.lock().waiting_bytes <= MOST_WAITING, "after {n}");
        }
        copies.leave(path);
        assert!(!copies.is_protected(path, now) && !copies.any.load(Ordering::Acquire));
    }
}
