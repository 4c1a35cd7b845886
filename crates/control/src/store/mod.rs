//! What the control plane remembers: revisioned keys, compare-and-set transactions, and a watch.
//!
//! [`Store`] is small on purpose: `RedbStore` (one control node, one file) and, later, etcd pass the same
//! [`store_contract`]. The model is etcd's: every committed transaction raises
//! one revision for the whole store; a key remembers the revision that last wrote it; a reader takes a
//! range, which says at which revision it was taken, and watches from there on.

mod contract;
mod history;
mod redb;

use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

pub use contract::store_contract;
pub use redb::RedbStore;

/// A value in the form in which it is stored: JSON.
pub(crate) fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("what is stored has string keys only")
}

/// A future of a trait object's method.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Counts committed transactions of a store. Never goes back, not even over a restart. 0 = empty store.
pub type Revision = u64;

/// Largest value of one key, in bytes.
pub const MAX_VALUE: usize = 1024 * 1024;
/// Longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// Most operations in one transaction.
pub const MAX_OPS: usize = 16_384;

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value, opaque to the store.
    pub value: Bytes,
    /// The transaction that last wrote it.
    pub mod_revision: Revision,
}

/// Everything under a prefix, at one revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Range {
    /// In the order of their keys.
    pub entries: Vec<Entry>,
    /// The store's revision at which `entries` were true: watch from here.
    pub revision: Revision,
}

/// What must hold for a transaction to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// The key is not there.
    Absent(String),
    /// The key is there, last written by this revision.
    At(String, Revision),
    /// The key is there.
    Exists(String),
}

impl Condition {
    /// The key that the condition is about.
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Absent(key) | Self::At(key, _) | Self::Exists(key) => key,
        }
    }

    /// Whether it holds for a key whose last writer was `found` (`None`: the key is absent).
    #[must_use]
    pub fn holds(&self, found: Option<Revision>) -> bool {
        match self {
            Self::Absent(_) => found.is_none(),
            Self::At(_, revision) => found == Some(*revision),
            Self::Exists(_) => found.is_some(),
        }
    }
}

/// One change of a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Write the value.
    Put(String, Bytes),
    /// Remove the key. Nothing happens if it is absent.
    Delete(String),
}

/// All or nothing: the operations, if every condition holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Txn {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// Done in order; a later one on the same key wins.
    pub ops: Vec<Op>,
}

impl Txn {
    /// An empty transaction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a condition.
    #[must_use]
    pub fn when(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Adds a write.
    #[must_use]
    pub fn put(mut self, key: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.ops.push(Op::Put(key.into(), value.into()));
        self
    }

    /// Adds a removal.
    #[must_use]
    pub fn delete(mut self, key: impl Into<String>) -> Self {
        self.ops.push(Op::Delete(key.into()));
        self
    }

    /// Refuses what no store has to take.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for an empty or overlong key, a value over [`MAX_VALUE`], or too many operations.
    pub fn check(&self) -> Result<(), StoreError> {
        if self.ops.len() > MAX_OPS {
            return Err(StoreError::Invalid(format!(
                "a transaction of {} operations is over the limit of {MAX_OPS}",
                self.ops.len()
            )));
        }
        for op in &self.ops {
            let (key, len) = match op {
                Op::Put(key, value) => (key, value.len()),
                Op::Delete(key) => (key, 0),
            };
            if key.is_empty() || key.len() > MAX_KEY {
                return Err(StoreError::Invalid(format!(
                    "a key of {} bytes is not between 1 and {MAX_KEY}",
                    key.len()
                )));
            }
            if len > MAX_VALUE {
                return Err(StoreError::Invalid(format!(
                    "the value of '{key}' has {len} bytes, the limit is {MAX_VALUE}"
                )));
            }
        }
        Ok(())
    }
}

/// One change as a watcher sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// The new value; `None` if the key is gone.
    pub value: Option<Bytes>,
}

/// One committed transaction as a watcher sees it: whole, never in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// The revision that it made.
    pub revision: Revision,
    /// The changes under the watched prefix, one for a key, in the order of the keys.
    pub changes: Vec<Change>,
}

/// Why a watch ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// The history does not reach back that far: take a new range and watch from its revision.
    #[error("the store's history no longer reaches back to revision {from}")]
    Compacted {
        /// Where the watch stood.
        from: Revision,
    },
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
}

/// A reader of transactions, in the order of their revisions.
pub trait Watch: Send {
    /// The next transaction that touches the prefix. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`WatchEnd`]; the watch is of no use afterwards.
    fn next(&mut self) -> BoxFuture<'_, Result<Transaction, WatchEnd>>;
}

/// The memory of the control plane.
pub trait Store: Send + Sync + 'static {
    /// One key.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>>;

    /// All keys that start with `prefix`, at one revision.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    fn range<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Range, StoreError>>;

    /// Commits durably: when this returns a revision, a crash does not undo it. A transaction without
    /// operations changes nothing and gives the present revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] if a condition does not hold; others if the store cannot be written.
    /// In every case nothing of the transaction is done.
    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision, StoreError>>;

    /// Transactions after `from` that touch keys starting with `prefix`.
    fn watch(&self, prefix: &str, from: Revision) -> Box<dyn Watch>;
}

/// Why the store could not do what was asked. State is as it was before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A condition of a transaction does not hold: someone else was first. Read again and decide anew.
    #[error("'{key}' was changed by someone else in the meantime")]
    Conflict {
        /// The key of the first condition that failed.
        key: String,
    },
    /// The transaction itself is not acceptable.
    #[error("the store refuses this: {0}")]
    Invalid(String),
    /// Another process has it open.
    #[error(
        "another control node uses this state directory: {path} is locked; stop that one first"
    )]
    InUse {
        /// The file.
        path: String,
    },
    /// The file is damaged.
    #[error(
        "the store {path} is corrupt ({reason}); restore the state directory from a backup, nothing was changed"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// What was found.
        reason: String,
    },
    /// No space left, or a quota is used up.
    #[error(
        "the disk that holds {path} is full; nothing was written, free some space and try again"
    )]
    DiskFull {
        /// The file.
        path: String,
    },
    /// Anything else that the operating system says.
    #[error(
        "the store {path} cannot be used: {reason}; see that its disk works and that it belongs to the user who runs this, mode 0600"
    )]
    Io {
        /// The file.
        path: String,
        /// Its words.
        reason: String,
    },
}
