//! Who was refused and why: counters for all of it, logs at a bounded rate, the last few in full.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use weft_env::Env;

/// Enough for an operator to see who knocks; a flood of strangers must not fill a disk.
const LOGS_PER_WINDOW: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);
const REMEMBERED: usize = 32;

/// Which way a connection was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// The peer dialled us.
    Inbound,
    /// We dialled the peer.
    Outbound,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        })
    }
}

/// One connection that did not come to be.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// When.
    pub at: SystemTime,
    /// Who dialled.
    pub direction: Direction,
    /// The peer's address.
    pub addr: SocketAddr,
    /// The label that it is counted under.
    pub reason: &'static str,
    /// The reason in words.
    pub detail: String,
}

#[derive(Debug)]
pub(crate) struct Refusals {
    env: Env,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    counts: BTreeMap<(Direction, &'static str), u64>,
    recent: VecDeque<Refusal>,
    window_began: Instant,
    logged: u32,
    silenced: u64,
}

impl Refusals {
    pub(crate) fn new(env: &Env) -> Self {
        let inner = Inner {
            counts: BTreeMap::new(),
            recent: VecDeque::with_capacity(REMEMBERED),
            window_began: Instant::now(),
            logged: 0,
            silenced: 0,
        };
        Self {
            env: env.clone(),
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Counters are whole after every statement.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn record(
        &self,
        direction: Direction,
        addr: SocketAddr,
        reason: &'static str,
        detail: String,
    ) {
        let at = self.env.wall();
        let mut inner = self.lock();
        *inner.counts.entry((direction, reason)).or_default() += 1;
        let log = inner.may_log(Instant::now());
        if let Some(silenced) = log {
            tracing::warn!(%direction, peer = %addr, reason, silenced, "connection refused: {detail}");
        }
        if inner.recent.len() == REMEMBERED {
            inner.recent.pop_front();
        }
        inner.recent.push_back(Refusal {
            at,
            direction,
            addr,
            reason,
            detail,
        });
    }

    pub(crate) fn counts(&self) -> BTreeMap<(Direction, &'static str), u64> {
        self.lock().counts.clone()
    }

    /// Both directions together.
    pub(crate) fn totals(&self) -> BTreeMap<&'static str, u64> {
        let mut totals = BTreeMap::new();
        for ((_, reason), count) in &self.lock().counts {
            *totals.entry(*reason).or_default() += count;
        }
        totals
    }

    pub(crate) fn recent(&self) -> Vec<Refusal> {
        self.lock().recent.iter().cloned().collect()
    }
}

impl Inner {
    /// `Some(n)` when a line may be written; `n` lines were left out since the last one.
    fn may_log(&mut self, now: Instant) -> Option<u64> {
        if now.duration_since(self.window_began) >= WINDOW {
            self.window_began = now;
            self.logged = 0;
        }
        if self.logged == LOGS_PER_WINDOW {
            self.silenced += 1;
            return None;
        }
        self.logged += 1;
        Some(std::mem::take(&mut self.silenced))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_refusal_is_counted_and_a_flood_is_logged_at_a_bounded_rate() {
        let refusals = Refusals::new(&Env::system());
        let addr = SocketAddr::from(([127, 0, 0, 1], 1));
        for _ in 0..100 {
            refusals.record(Direction::Inbound, addr, "expired", "old".to_owned());
        }
        refusals.record(Direction::Outbound, addr, "timeout", "silent".to_owned());
        assert_eq!(
            refusals.totals(),
            BTreeMap::from([("expired", 100), ("timeout", 1)])
        );
        assert_eq!(refusals.recent().len(), REMEMBERED);
        assert_eq!(
            refusals.recent().last().map(|last| last.reason),
            Some("timeout")
        );
        assert_eq!(refusals.lock().silenced, 91);
        tokio::time::advance(WINDOW).await;
        assert_eq!(refusals.lock().may_log(Instant::now()), Some(91));
    }
}
