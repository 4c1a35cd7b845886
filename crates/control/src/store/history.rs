//! The last transactions, in memory, for watchers. Bounded in number and in bytes: a watcher that falls
//! behind by more takes a new range.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::{BoxFuture, Change, Revision, Transaction, Watch, WatchEnd};

/// Transactions kept for watchers.
const MAX_TRANSACTIONS: usize = 4096;
/// Bytes of keys and values kept for watchers.
const MAX_BYTES: usize = 32 * 1024 * 1024;

/// Pure part: the ring.
#[derive(Debug)]
struct Ring {
    /// Every transaction after this revision is in `transactions`.
    base: Revision,
    last: Revision,
    bytes: usize,
    transactions: VecDeque<Arc<Transaction>>,
}

impl Ring {
    fn push(&mut self, transaction: Transaction, max_transactions: usize, max_bytes: usize) {
        debug_assert!(transaction.revision > self.last, "revisions only grow");
        self.last = transaction.revision;
        self.bytes += size(&transaction);
        self.transactions.push_back(Arc::new(transaction));
        while self.transactions.len() > max_transactions || self.bytes > max_bytes {
            let Some(oldest) = self.transactions.pop_front() else {
                break;
            };
            self.bytes -= size(&oldest);
            self.base = oldest.revision;
        }
    }

    /// The first transaction after `from` that touches `prefix`, or how far there is none.
    fn after(&self, from: Revision, prefix: &str) -> Result<Step, WatchEnd> {
        if from < self.base {
            return Err(WatchEnd::Compacted { from });
        }
        let start = self
            .transactions
            .partition_point(|transaction| transaction.revision <= from);
        for transaction in self.transactions.range(start..) {
            let changes: Vec<Change> = transaction
                .changes
                .iter()
                .filter(|change| change.key.starts_with(prefix))
                .cloned()
                .collect();
            if !changes.is_empty() {
                return Ok(Step::Found(Transaction {
                    revision: transaction.revision,
                    changes,
                }));
            }
        }
        Ok(Step::NothingUpTo(self.last.max(from)))
    }
}

fn size(transaction: &Transaction) -> usize {
    transaction
        .changes
        .iter()
        .map(|change| change.key.len() + change.value.as_ref().map_or(0, bytes::Bytes::len) + 64)
        .sum()
}

enum Step {
    Found(Transaction),
    NothingUpTo(Revision),
}

/// The recent past of a store, shared with its watchers.
#[derive(Debug, Clone)]
pub(super) struct History {
    ring: Arc<Mutex<Ring>>,
    latest: Arc<watch::Sender<Revision>>,
}

impl History {
    /// Starts with nothing known before `revision`.
    pub(super) fn new(revision: Revision) -> Self {
        Self {
            ring: Arc::new(Mutex::new(Ring {
                base: revision,
                last: revision,
                bytes: 0,
                transactions: VecDeque::new(),
            })),
            latest: Arc::new(watch::Sender::new(revision)),
        }
    }

    /// Adds a committed transaction. Call in the order of revisions.
    pub(super) fn publish(&self, transaction: Transaction) {
        let revision = transaction.revision;
        lock(&self.ring).push(transaction, MAX_TRANSACTIONS, MAX_BYTES);
        self.latest.send_replace(revision);
    }

    /// A watcher that stands at `from`.
    pub(super) fn watch(&self, prefix: &str, from: Revision) -> Box<dyn Watch> {
        Box::new(HistoryWatch {
            ring: self.ring.clone(),
            latest: self.latest.subscribe(),
            prefix: prefix.to_owned(),
            from,
        })
    }
}

fn lock(ring: &Mutex<Ring>) -> MutexGuard<'_, Ring> {
    // The ring is consistent between statements, so a panic elsewhere does not spoil it.
    ring.lock().unwrap_or_else(PoisonError::into_inner)
}

struct HistoryWatch {
    ring: Arc<Mutex<Ring>>,
    latest: watch::Receiver<Revision>,
    prefix: String,
    from: Revision,
}

impl Watch for HistoryWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Transaction, WatchEnd>> {
        Box::pin(async move {
            loop {
                self.latest.mark_unchanged();
                let step = lock(&self.ring).after(self.from, &self.prefix)?;
                match step {
                    Step::Found(transaction) => {
                        self.from = transaction.revision;
                        return Ok(transaction);
                    }
                    Step::NothingUpTo(revision) => self.from = revision,
                }
                if self.latest.changed().await.is_err() {
                    return Err(WatchEnd::Closed);
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn transaction(revision: Revision, key: &str) -> Transaction {
        Transaction {
            revision,
            changes: vec![Change {
                key: key.to_owned(),
                value: Some(bytes::Bytes::from(vec![0; 100])),
            }],
        }
    }

    #[test]
    fn the_ring_is_bounded_and_says_when_it_cannot_reach_back() {
        let mut ring = Ring {
            base: 10,
            last: 10,
            bytes: 0,
            transactions: VecDeque::new(),
        };
        for revision in 11..=20 {
            ring.push(transaction(revision, "a/x"), 4, 10_000);
        }
        assert_eq!(ring.transactions.len(), 4);
        assert_eq!(ring.base, 16);
        assert!(matches!(
            ring.after(15, "a/"),
            Err(WatchEnd::Compacted { from: 15 })
        ));
        assert!(matches!(ring.after(16, "a/"), Ok(Step::Found(t)) if t.revision == 17));
        assert!(matches!(ring.after(16, "b/"), Ok(Step::NothingUpTo(20))));
        assert!(matches!(ring.after(20, "a/"), Ok(Step::NothingUpTo(20))));

        ring.push(transaction(21, "a/x"), 100, 400);
        assert!(ring.bytes <= 400, "bytes are bounded, not only the count");
        assert_eq!(ring.transactions.back().map(|t| t.revision), Some(21));
    }
}
