//! The embedded store: one file, one process.

mod backend;

use std::collections::BTreeMap;
use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ::redb::backends::FileBackend;
use ::redb::{
    Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase, ReadableTable,
    TableDefinition, WriteTransaction,
};
use bytes::Bytes;
use weft_env::Env;
use weft_env::mutants::{Mutant, broken};

use self::backend::GatedFile;
use super::history::History;
use super::{
    BoxFuture, Change, Entry, Op, Range, Revision, Store, StoreError, Transaction, Txn, Watch,
};

/// Key to (revision of its last write, value).
const DATA: TableDefinition<'_, &str, (u64, &[u8])> = TableDefinition::new("data");
/// The store's own numbers: its revision and the version of its layout.
const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const REVISION: &str = "revision";
const FORMAT: &str = "format";
/// Raised when the layout changes in a way that an older weft would misread.
const FORMAT_VERSION: u64 = 1;
/// redb's page cache. The default of 1 GiB is out of proportion for a few thousand small values.
const CACHE_BYTES: usize = 16 * 1024 * 1024;

type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send + Sync>;

/// [`Store`] in one redb file. Cheap to clone; the file is closed when the last clone is gone.
#[derive(Clone)]
pub struct RedbStore {
    env: Env,
    inner: Arc<Inner>,
}

struct Inner {
    path: String,
    open: Opener,
    /// Empty after an I/O error: redb then wants to be opened anew. Only ever locked on a disk thread.
    database: RwLock<Option<Database>>,
    /// Held over a commit and its publication, so that watchers see revisions in order.
    committing: Mutex<()>,
    history: History,
}

impl RedbStore {
    /// Opens the file at `path`, or makes it.
    ///
    /// # Errors
    /// [`StoreError::InUse`] if another process has it open, [`StoreError::Corrupt`] if it is damaged
    /// or was written by a later weft, [`StoreError::Io`] and [`StoreError::DiskFull`].
    pub async fn open(env: &Env, path: &Path) -> Result<Self, StoreError> {
        let file: PathBuf = path.to_owned();
        let disk = env.disk(|disk| disk.clone()).await;
        let opener: Opener = Box::new(move || {
            let backend = GatedFile {
                file: FileBackend::new(own_file(&file)?)?,
                disk: disk.clone(),
                path: file.clone(),
            };
            Database::builder()
                .set_cache_size(CACHE_BYTES)
                // A few megabytes at most, read once: a damaged page is found now, not in mid-push.
                .set_check_integrity_on_open(true)
                .create_with_backend(backend)
        });
        Self::open_with(env, path.display().to_string(), opener).await
    }

    /// Whether the file at `path` holds `key`, without changing a byte of it. `None` if it cannot be told so:
    /// another process has it, or it was not closed in order.
    pub(crate) async fn peek(env: &Env, path: &Path, key: &'static str) -> Option<bool> {
        let file = path.to_owned();
        let look = move || -> Result<bool, ::redb::Error> {
            let txn = ReadOnlyDatabase::open(&file)?.begin_read()?;
            Ok(get(&txn, key)?.is_some())
        };
        env.disk(move |_| look().ok()).await
    }

    /// Makes a new file with this content, all of it at once, at this revision.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn restore(
        env: &Env,
        path: &Path,
        revision: Revision,
        entries: Vec<(String, Bytes)>,
    ) -> Result<(), StoreError> {
        let store = Self::open(env, path).await?;
        let write = move |database: &Database| {
            let txn = database.begin_write()?;
            {
                let mut data = txn.open_table(DATA)?;
                for (key, value) in &entries {
                    data.insert(key.as_str(), (revision, value.as_ref()))?;
                }
                txn.open_table(META)?.insert(REVISION, revision)?;
            }
            txn.commit()?;
            Ok(())
        };
        store.on_disk(move |inner| inner.with_database(write)).await
    }

    async fn open_with(env: &Env, path: String, open: Opener) -> Result<Self, StoreError> {
        let inner = env
            .disk(move |_| {
                let database = open().map_err(|error| database_error(&path, error))?;
                let revision = prepare(&database).map_err(|error| storage_error(&path, error))?;
                let revision = revision.map_err(|format| StoreError::Corrupt {
                    path: path.clone(),
                    reason: format!(
                        "its layout has version {format}, this weft knows {FORMAT_VERSION}"
                    ),
                })?;
                Ok(Inner {
                    path,
                    open,
                    database: RwLock::new(Some(database)),
                    committing: Mutex::new(()),
                    history: History::new(revision),
                })
            })
            .await?;
        Ok(Self {
            env: env.clone(),
            inner: Arc::new(inner),
        })
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let inner = self.inner.clone();
        self.env.disk(move |_| work(&inner)).await
    }
}

impl Store for RedbStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        let key = key.to_owned();
        Box::pin(self.on_disk(move |inner| inner.read(|txn| get(txn, &key))))
    }

    fn range<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Range, StoreError>> {
        let prefix = prefix.to_owned();
        Box::pin(self.on_disk(move |inner| inner.read(|txn| range(txn, &prefix))))
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision, StoreError>> {
        Box::pin(async move {
            txn.check()?;
            self.on_disk(move |inner| inner.commit(txn)).await
        })
    }

    fn watch(&self, prefix: &str, from: Revision) -> Box<dyn Watch> {
        self.inner.history.watch(prefix, from)
    }
}

impl Inner {
    /// Does `work` on the open database, opening it first if an earlier failure closed it.
    fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, ::redb::Error>,
    ) -> Result<T, StoreError> {
        {
            let open = self.database.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(database) = open.as_ref() {
                return work(database).map_err(|error| storage_error(&self.path, error));
            }
        }
        let mut slot = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => (self.open)().map_err(|error| database_error(&self.path, error))?,
        };
        work(slot.insert(database)).map_err(|error| storage_error(&self.path, error))
    }

    fn read<T>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, ::redb::Error>,
    ) -> Result<T, StoreError> {
        self.with_database(|database| work(&database.begin_read()?))
    }

    fn commit(&self, txn: Txn) -> Result<Revision, StoreError> {
        let _order = self
            .committing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match self.with_database(|database| commit(database, &txn)) {
            Ok(Ok((revision, changes))) => {
                if let Some(changes) = changes {
                    self.history.publish(Transaction { revision, changes });
                }
                Ok(revision)
            }
            Ok(Err(key)) => Err(StoreError::Conflict { key }),
            Err(error) => {
                // After an I/O error redb refuses everything until it is opened anew, which also rolls
                // back what the failed commit left behind. The lock waits for readers to end.
                *self
                    .database
                    .write()
                    .unwrap_or_else(PoisonError::into_inner) = None;
                Err(error)
            }
        }
    }
}

/// Makes the tables of a new file; gives the revision, or the unknown layout version of an old one.
/// The file, for its owner's eyes only from its first moment on: it tells who may call whom.
fn own_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    // One that an earlier weft, or a careless copy, left open to others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn prepare(database: &Database) -> Result<Result<Revision, u64>, ::redb::Error> {
    let txn = database.begin_write()?;
    let revision = {
        txn.open_table(DATA)?;
        let mut meta = txn.open_table(META)?;
        let format = meta.get(FORMAT)?.map(|value| value.value());
        match format {
            None => {
                meta.insert(FORMAT, FORMAT_VERSION)?;
                meta.insert(REVISION, 0)?;
                0
            }
            Some(FORMAT_VERSION) => meta.get(REVISION)?.map_or(0, |value| value.value()),
            Some(unknown) => return Ok(Err(unknown)),
        }
    };
    txn.commit()?;
    Ok(Ok(revision))
}

fn get(txn: &ReadTransaction, key: &str) -> Result<Option<Entry>, ::redb::Error> {
    let table = txn.open_table(DATA)?;
    Ok(table.get(key)?.map(|found| {
        let (mod_revision, value) = found.value();
        Entry {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(value),
            mod_revision,
        }
    }))
}

fn range(txn: &ReadTransaction, prefix: &str) -> Result<Range, ::redb::Error> {
    let table = txn.open_table(DATA)?;
    let meta = txn.open_table(META)?;
    let mut entries = Vec::new();
    for row in table.range(prefix..)? {
        let (key, found) = row?;
        let key = key.value();
        if !key.starts_with(prefix) {
            break;
        }
        let (mod_revision, value) = found.value();
        entries.push(Entry {
            key: key.to_owned(),
            value: Bytes::copy_from_slice(value),
            mod_revision,
        });
    }
    let revision = meta.get(REVISION)?.map_or(0, |value| value.value());
    Ok(Range { entries, revision })
}

/// `Err(key)` inside: the condition on that key does not hold. `None` for the changes: there were no operations.
type Committed = Result<(Revision, Option<Vec<Change>>), String>;

fn commit(database: &Database, txn: &Txn) -> Result<Committed, ::redb::Error> {
    let mut write = database.begin_write()?;
    if broken(Mutant::CommitsInMemory) {
        write.set_durability(::redb::Durability::None)?;
    }
    let outcome = apply(&write, txn)?;
    match &outcome {
        Ok((_, Some(_))) => write.commit()?,
        Ok((_, None)) | Err(_) => write.abort()?,
    }
    Ok(outcome)
}

fn apply(write: &WriteTransaction, txn: &Txn) -> Result<Committed, ::redb::Error> {
    let mut table = write.open_table(DATA)?;
    let mut meta = write.open_table(META)?;
    for condition in &txn.conditions {
        let found = table.get(condition.key())?.map(|found| found.value().0);
        if !condition.holds(found) {
            return Ok(Err(condition.key().to_owned()));
        }
    }
    let revision = meta.get(REVISION)?.map_or(0, |value| value.value());
    if txn.ops.is_empty() {
        return Ok(Ok((revision, None)));
    }
    let revision = revision + 1;
    let mut changes: BTreeMap<&str, Option<Bytes>> = BTreeMap::new();
    for op in &txn.ops {
        match op {
            Op::Put(key, value) => {
                table.insert(key.as_str(), (revision, value.as_ref()))?;
                changes.insert(key, Some(value.clone()));
            }
            Op::Delete(key) => {
                let existed = table.remove(key.as_str())?.is_some();
                if existed || changes.contains_key(key.as_str()) {
                    changes.insert(key, None);
                }
            }
        }
    }
    meta.insert(REVISION, revision)?;
    let changes = changes
        .into_iter()
        .map(|(key, value)| Change {
            key: key.to_owned(),
            value,
        })
        .collect();
    Ok(Ok((revision, Some(changes))))
}

fn database_error(path: &str, error: DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            path: path.to_owned(),
        },
        DatabaseError::UpgradeRequired(version) => StoreError::Corrupt {
            path: path.to_owned(),
            reason: format!("its file format {version} is older than this weft reads"),
        },
        DatabaseError::RepairAborted => StoreError::Corrupt {
            path: path.to_owned(),
            reason: "it could not be repaired after a crash".to_owned(),
        },
        other => storage_error(path, other),
    }
}

fn storage_error(path: &str, error: impl Into<::redb::Error>) -> StoreError {
    let path = path.to_owned();
    match error.into() {
        ::redb::Error::Io(error) => match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                StoreError::DiskFull { path }
            }
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof => StoreError::Corrupt {
                path,
                reason: error.to_string(),
            },
            _ => StoreError::Io {
                path,
                reason: error.to_string(),
            },
        },
        error @ (::redb::Error::Corrupted(_)
        | ::redb::Error::TableTypeMismatch { .. }
        | ::redb::Error::TableIsMultimap(_)
        | ::redb::Error::TypeDefinitionChanged { .. }) => StoreError::Corrupt {
            path,
            reason: error.to_string(),
        },
        error => StoreError::Io {
            path,
            reason: error.to_string(),
        },
    }
}

#[cfg(test)]
mod tests;
