//! The database's file, each step past the disk's gate.

use std::io;
use std::ops::Bound;
use std::path::PathBuf;

use ::redb::backends::FileBackend;
use ::redb::{BackendError, StorageBackend};
use weft_env::{Disk, DiskError, DiskOp};

/// As redb's own, and a simulated disk can be full, or its process die, between any two writes of a commit: then
/// nothing more is written, not even what redb would put in order when it is dropped. A real disk has no gate.
#[derive(Debug)]
pub(super) struct GatedFile {
    pub(super) file: FileBackend,
    pub(super) disk: Disk,
    pub(super) path: PathBuf,
}

impl GatedFile {
    fn pass(&self, op: DiskOp) -> io::Result<()> {
        match self.disk.pass(op, &self.path) {
            Err(DiskError::Io { source, .. }) => Err(source),
            Err(other) => Err(io::Error::other(other)),
            Ok(()) => Ok(()),
        }
    }
}

impl StorageBackend for GatedFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.pass(DiskOp::Write)?;
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.pass(DiskOp::Replace)?;
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.pass(DiskOp::Write)?;
        self.file.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
