//! Files: small state, written whole or not at all.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The owner only (0600): keys, tokens, state.
    Secret,
    /// Everybody (0644): certificates, bundles.
    Public,
}

impl Mode {
    fn bits(self) -> u32 {
        match self {
            Self::Secret => 0o600,
            Self::Public => 0o644,
        }
    }
}

/// What is being done to a path, for messages and for a [`DiskGate`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Reading a file.
    Read,
    /// Writing and syncing the new content beside the old.
    Write,
    /// Putting the new content in the place of the old.
    Replace,
    /// Creating a directory.
    CreateDir,
    /// Removing a file.
    Remove,
    /// Listing a directory.
    List,
    /// Taking a lock.
    Lock,
}

impl fmt::Display for DiskOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Replace => "replace",
            Self::CreateDir => "create the directory",
            Self::Remove => "remove",
            Self::List => "list",
            Self::Lock => "lock",
        })
    }
}

/// Why a file could not be used.
#[derive(Debug, Error)]
pub enum DiskError {
    /// The operating system refused.
    #[error("cannot {op} {path}: {reason}", path = path.display(), reason = reason(source))]
    Io {
        /// What was attempted.
        op: DiskOp,
        /// On which path.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file has more bytes than anything weft writes there.
    #[error("cannot read {path}: it is larger than {limit} bytes", path = path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest size accepted, in bytes.
        limit: usize,
    },
    /// A directory of another user is not ours to put keys into, even where root could.
    #[error(
        "the directory {path} belongs to user {owner}, and this process runs as user {me}: \
         choose a directory of its own, or run it as that user",
        path = path.display()
    )]
    NotOwner {
        /// The directory.
        path: PathBuf,
        /// Who owns it.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// Others use it, and it is not to be closed to them unasked.
    #[error(
        "the directory {path} has files in it that are not weft's, and is open to other users: \
         choose a new or an empty one, or close it with chmod 700 if it is meant",
        path = path.display()
    )]
    Shared {
        /// The directory.
        path: PathBuf,
    },
    /// Others could put a socket of their own in the place of ours.
    #[error(
        "the directory {path} is not safe for a socket: {why}; choose one that only its owner can write to",
        path = path.display()
    )]
    Unsafe {
        /// The directory.
        path: PathBuf,
        /// Who else can write to it.
        why: &'static str,
    },
    /// Another process has the lock.
    #[error(
        "{path} is held by another process: stop it first, or use another state directory",
        path = path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
}

impl DiskError {
    /// Whether the file is just not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        io::ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::NotADirectory => "a part of the path is not a directory".to_owned(),
        _ => error.to_string(),
    }
}

/// Lets a simulator fail or crash at a chosen operation.
pub trait DiskGate: Send + Sync {
    /// Called before each step. An error is what the caller of the operation sees.
    ///
    /// # Errors
    /// Whatever fault the platform wants to inject.
    fn before(&self, op: DiskOp, path: &Path) -> io::Result<()>;
}

/// The node's files, as seen inside [`Env::disk`](crate::Env::disk). Every call blocks.
#[derive(Clone, Default)]
pub struct Disk {
    gate: Option<Arc<dyn DiskGate>>,
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("gated", &self.gate.is_some())
            .finish()
    }
}

impl Disk {
    /// The file system of the machine.
    #[must_use]
    pub fn system() -> Self {
        Self { gate: None }
    }

    /// The file system behind a gate that can inject faults.
    #[must_use]
    pub fn gated(gate: Arc<dyn DiskGate>) -> Self {
        Self { gate: Some(gate) }
    }

    pub(crate) fn step<T>(
        &self,
        op: DiskOp,
        path: &Path,
        act: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, DiskError> {
        let allowed = self
            .gate
            .as_ref()
            .map_or(Ok(()), |gate| gate.before(op, path));
        allowed
            .and_then(|()| act())
            .map_err(|source| DiskError::Io {
                op,
                path: path.to_owned(),
                source,
            })
    }

    /// Passes the gate before a step that something else takes, such as a database on its own file.
    ///
    /// # Errors
    /// [`DiskError::Io`] if the step must not be taken; never on real disks.
    pub fn pass(&self, op: DiskOp, path: &Path) -> Result<(), DiskError> {
        self.step(op, path, || Ok(()))
    }

    /// The content of a file of at most `max_bytes`.
    ///
    /// # Errors
    /// [`DiskError::TooLarge`], or [`DiskError::Io`]; see [`DiskError::is_not_found`].
    pub fn read(&self, path: &Path, max_bytes: usize) -> Result<Vec<u8>, DiskError> {
        let content = self.step(DiskOp::Read, path, || {
            let mut content = Vec::new();
            // One byte more than allowed tells a file that is too large, however it grows meanwhile.
            let limit = u64::try_from(max_bytes)
                .unwrap_or(u64::MAX)
                .saturating_add(1);
            File::open(path)?.take(limit).read_to_end(&mut content)?;
            Ok(content)
        })?;
        if content.len() > max_bytes {
            return Err(DiskError::TooLarge {
                path: path.to_owned(),
                limit: max_bytes,
            });
        }
        Ok(content)
    }

    /// [`Disk::read`], with `None` for a file that is not there.
    ///
    /// # Errors
    /// As [`Disk::read`], but never "not found".
    pub fn read_optional(
        &self,
        path: &Path,
        max_bytes: usize,
    ) -> Result<Option<Vec<u8>>, DiskError> {
        match self.read(path, max_bytes) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Puts `content` in the place of a file so that, whenever the machine stops, the old or the new
    /// content is there whole: written beside it, synced, renamed, and the directory synced.
    ///
    /// # Errors
    /// [`DiskError::Io`]; the old content is then untouched, or (only when syncing the directory failed)
    /// the new one is in place but may not survive a crash.
    pub fn write_atomic(&self, path: &Path, content: &[u8], mode: Mode) -> Result<(), DiskError> {
        let temporary = temporary_name(path);
        let written = self.step(DiskOp::Write, path, || {
            write_synced(&temporary, content, mode)
        });
        let replaced = written.and_then(|()| {
            self.step(DiskOp::Replace, path, || {
                fs::rename(&temporary, path)?;
                sync_dir(path)
            })
        });
        if replaced.is_err() {
            let _ = fs::remove_file(&temporary);
        }
        replaced
    }

    /// Creates a directory with mode 0700, and its parents; an existing one is narrowed to 0700, if it is empty or has a
    /// file of `marks`, by which it is known as one of weft's.
    ///
    /// # Errors
    /// [`DiskError::NotOwner`] when it belongs to another user, [`DiskError::Shared`] when others use it, and it stays as
    /// it is; [`DiskError::Io`].
    pub fn create_dir_private(&self, path: &Path, marks: &[&str]) -> Result<(), DiskError> {
        let me = rustix::process::geteuid().as_raw();
        match fs::metadata(path) {
            Ok(metadata) if metadata.is_dir() && metadata.uid() != me => {
                return Err(DiskError::NotOwner {
                    path: path.to_owned(),
                    owner: metadata.uid(),
                    me,
                });
            }
            Ok(metadata)
                if metadata.is_dir()
                    && metadata.mode() & 0o077 != 0
                    && !marks.iter().any(|mark| path.join(mark).exists())
                    && fs::read_dir(path).is_ok_and(|mut files| files.next().is_some()) =>
            {
                return Err(DiskError::Shared {
                    path: path.to_owned(),
                });
            }
            // What else may be wrong, making it says.
            _ => {}
        }
        self.step(DiskOp::CreateDir, path, || {
            DirBuilder::new().recursive(true).mode(0o700).create(path)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o700))
        })
    }

    /// A secret of 32 bytes that is made once: what the file holds, or `fresh` if it holds none.
    ///
    /// # Errors
    /// [`DiskError::Io`] when it cannot be read or written.
    pub fn secret(&self, path: &Path, fresh: [u8; 32]) -> Result<[u8; 32], DiskError> {
        let known = self.read_optional(path, 1024)?;
        if let Some(secret) = known.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok()) {
            return Ok(secret);
        }
        self.write_atomic(path, &fresh, Mode::Secret)?;
        Ok(fresh)
    }

    /// Removes a file; one that is not there is fine.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn remove(&self, path: &Path) -> Result<(), DiskError> {
        self.step(DiskOp::Remove, path, || match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync_dir(path),
        })
    }

    /// Whether something is at the path.
    ///
    /// # Errors
    /// [`DiskError::Io`] when that cannot be told.
    pub fn exists(&self, path: &Path) -> Result<bool, DiskError> {
        self.step(DiskOp::Read, path, || path.try_exists())
    }

    /// The paths in a directory, sorted; without the temporary files of interrupted writes.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn list(&self, path: &Path) -> Result<Vec<PathBuf>, DiskError> {
        self.step(DiskOp::List, path, || {
            let mut found = Vec::new();
            for entry in fs::read_dir(path)? {
                let entry = entry?.path();
                if !is_temporary(&entry) {
                    found.push(entry);
                }
            }
            found.sort();
            Ok(found)
        })
    }

    /// Takes the lock of a file for this process, without waiting. It is created if needed and stays
    /// when the lock goes; the kernel gives the lock back when the process dies.
    ///
    /// # Errors
    /// [`DiskError::Locked`] when another process has it.
    pub fn lock(&self, path: &Path) -> Result<LockGuard, DiskError> {
        let (file, taken) = self.step(DiskOp::Lock, path, || {
            let mut options = OpenOptions::new();
            let file = options
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Ok((file, true)),
                Err(rustix::io::Errno::WOULDBLOCK) => Ok((file, false)),
                Err(errno) => Err(errno.into()),
            }
        })?;
        if !taken {
            return Err(DiskError::Locked {
                path: path.to_owned(),
            });
        }
        Ok(LockGuard { file })
    }
}

/// A lock that is held until this is dropped.
#[derive(Debug)]
#[must_use = "the lock is given back when this is dropped"]
pub struct LockGuard {
    /// Closing the file, in every process that has it, gives the lock back.
    file: File,
}

impl LockGuard {
    /// The lock once more, for another process: it is held until both have dropped it.
    ///
    /// # Errors
    /// Such as too many open files.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// A lock that another process has shared.
    pub fn adopt(fd: OwnedFd) -> Self {
        Self {
            file: File::from(fd),
        }
    }
}

const TEMPORARY_SUFFIX: &str = ".weft-tmp";

fn temporary_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(
        ".{:x}.{number:x}{TEMPORARY_SUFFIX}",
        std::process::id()
    ));
    path.with_file_name(name)
}

fn is_temporary(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|name| name.to_string_lossy().ends_with(TEMPORARY_SUFFIX))
}

fn write_synced(path: &Path, content: &[u8], mode: Mode) -> io::Result<()> {
    // The mode is given at creation: a secret is never readable, not even for a moment.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode.bits())
        .open(path)?;
    // The umask may have narrowed it further.
    file.set_permissions(fs::Permissions::from_mode(mode.bits()))?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path
        .parent()
        .filter(|dir| !dir.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}
