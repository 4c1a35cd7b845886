//! Where a socket lies that other users connect to: nobody but its owner may be able to replace it.

use std::fs::{self, DirBuilder, Metadata};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use crate::{Disk, DiskError, DiskOp};

const STICKY: u32 = 0o1000;
const OTHERS_WRITE: u32 = 0o022;

impl Disk {
    /// Makes sure that a socket in this directory stays ours: creates the directory with mode 0755 if it is
    /// missing, and refuses one in which another user (root aside) could rename or remove files.
    ///
    /// # Errors
    /// [`DiskError::Unsafe`]; [`DiskError::Io`].
    pub fn socket_dir(&self, path: &Path) -> Result<(), DiskError> {
        let found = self.step(DiskOp::CreateDir, path, || {
            DirBuilder::new().recursive(true).mode(0o755).create(path)?;
            fs::metadata(path)
        })?;
        let me = rustix::process::geteuid().as_raw();
        unsafe_for_sockets(&found, me).map_or(Ok(()), |why| {
            Err(DiskError::Unsafe {
                path: path.to_owned(),
                why,
            })
        })
    }

    /// Lets every user of the machine connect to a socket: mode 0666.
    ///
    /// # Errors
    /// [`DiskError::Io`].
    pub fn open_socket(&self, path: &Path) -> Result<(), DiskError> {
        self.step(DiskOp::Write, path, || {
            fs::set_permissions(path, fs::Permissions::from_mode(0o666))
        })
    }
}

fn unsafe_for_sockets(directory: &Metadata, me: u32) -> Option<&'static str> {
    reason(directory.uid(), directory.mode(), me)
}

fn reason(owner: u32, mode: u32, me: u32) -> Option<&'static str> {
    if owner != me && owner != 0 {
        Some("it belongs to another user")
    } else if mode & OTHERS_WRITE != 0 && mode & STICKY == 0 {
        Some("its group or everybody can write to it")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_lies_where_only_its_owner_or_root_can_replace_it() {
        let (me, root, other) = (1000, 0, 1001);
        let cases = [
            (me, 0o755, true),
            (me, 0o700, true),
            (root, 0o755, true),
            (root, 0o1777, true),
            (me, 0o1770, true),
            (me, 0o775, false),
            (me, 0o757, false),
            (root, 0o777, false),
            (other, 0o755, false),
            (other, 0o1777, false),
        ];
        for (owner, mode, good) in cases {
            assert_eq!(
                reason(owner, mode, me).is_none(),
                good,
                "owner {owner} {mode:o}"
            );
        }
    }

    #[test]
    fn a_missing_directory_is_made_for_all_to_enter_and_an_open_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::system();
        let made = dir.path().join("run/weft");
        disk.socket_dir(&made).unwrap();
        assert_eq!(fs::metadata(&made).unwrap().mode() & 0o777, 0o755);
        fs::set_permissions(&made, fs::Permissions::from_mode(0o777)).unwrap();
        let error = disk.socket_dir(&made).unwrap_err().to_string();
        assert!(error.contains("everybody can write"), "{error}");
    }
}
