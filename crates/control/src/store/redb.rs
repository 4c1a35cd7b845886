//! The embedded store: one file, one process.

mod backend;
mod guarded;
mod tables;

use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use ::redb::backends::FileBackend;
use ::redb::{Database, DatabaseError, ReadOnlyDatabase, ReadTransaction, ReadableDatabase};
use bytes::Bytes;
use weft_env::Env;

use self::backend::GatedFile;
use self::guarded::guarded;
use self::tables::{DATA, FORMAT_VERSION, META, REVISION, commit, get, prepare, range};
use super::history::History;
use super::{BoxFuture, Entry, Range, Revision, Store, StoreError, Transaction, Txn, Watch};

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
        let look = move |file: &Path| -> Result<bool, ::redb::Error> {
            if std::fs::metadata(file)?.len() == 0 {
                return Ok(false);
            }
            let txn = ReadOnlyDatabase::open(file)?.begin_read()?;
            Ok(get(&txn, key)?.is_some())
        };
        env.disk(move |_| {
            let path = file.display().to_string();
            guarded(&path, || {
                look(&file).map_err(|error| storage_error(&path, error))
            })
            .ok()
        })
        .await
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
                let (database, revision) = guarded(&path, || {
                    let database = open().map_err(|error| database_error(&path, error))?;
                    let revision = prepare(&database);
                    let revision = revision.map_err(|error| storage_error(&path, error))?;
                    Ok((database, revision))
                })?;
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
                return self.guarded(|| work(database));
            }
        }
        let mut slot = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let database = match slot.take() {
            Some(database) => database,
            None => guarded(&self.path, || {
                (self.open)().map_err(|error| database_error(&self.path, error))
            })?,
        };
        let database = slot.insert(database);
        self.guarded(|| work(database))
    }

    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, ::redb::Error>) -> Result<T, StoreError> {
        guarded(&self.path, || {
            work().map_err(|error| storage_error(&self.path, error))
        })
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
