//! Unix sockets that belong to one process and one user.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::net::{UnixListener, UnixStream};

/// A listener that removes its socket file when it goes.
#[derive(Debug)]
pub(crate) struct OwnedUnixListener {
    inner: UnixListener,
    path: PathBuf,
    /// Whether the socket file goes with this.
    owned: AtomicBool,
}

impl OwnedUnixListener {
    /// A listener that another process has shared. Its file is that process's until [`own`](Self::own).
    pub(crate) fn adopt(fd: OwnedFd, path: PathBuf) -> io::Result<Self> {
        let inner = std::os::unix::net::UnixListener::from(fd);
        inner.set_nonblocking(true)?;
        Ok(Self {
            inner: UnixListener::from_std(inner)?,
            path,
            owned: AtomicBool::new(false),
        })
    }

    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        self.inner.as_fd().try_clone_to_owned()
    }

    pub(crate) fn own(&self, owned: bool) {
        self.owned.store(owned, Ordering::Relaxed);
    }

    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.inner.accept().await?.0)
    }
}

impl Drop for OwnedUnixListener {
    fn drop(&mut self) {
        // Nobody else can have taken the path while this listener lived (`ensure_free`).
        if *self.owned.get_mut() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Binds under a temporary name, narrows the mode and only then gives the socket its name: nobody can
/// connect before the mode is right, and a stale file is replaced in one step.
pub(crate) async fn listen(path: PathBuf) -> io::Result<OwnedUnixListener> {
    let temporary = temporary_name(&path);
    for name in [&path, &temporary] {
        check_length(name).map_err(|cause| named("listen on", &path, &cause))?;
    }
    ensure_free(&path).await?;
    let bound = bind_private(&temporary).and_then(|inner| {
        fs::rename(&temporary, &path)?;
        Ok(inner)
    });
    match bound {
        Ok(inner) => Ok(OwnedUnixListener {
            inner,
            path,
            owned: AtomicBool::new(true),
        }),
        Err(cause) => {
            let _ = fs::remove_file(&temporary);
            Err(named("listen on", &path, &cause))
        }
    }
}

pub(crate) async fn connect(path: &Path) -> io::Result<UnixStream> {
    let opened = match check_length(path) {
        Ok(()) => open(path).await,
        Err(cause) => Err(cause),
    };
    opened.map_err(|cause| named("connect to", path, &cause))
}

/// Most bytes of a Unix socket's path: `sun_path` of unix(7) has 108, the last of which is 0.
pub const SOCKET_PATH_MAX: usize = 107;

fn check_length(path: &Path) -> io::Result<()> {
    let length = path.as_os_str().len();
    if length <= SOCKET_PATH_MAX {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::InvalidInput,
        format!(
            "its path has {length} bytes, and that of a socket may have {SOCKET_PATH_MAX}; choose a shorter directory"
        ),
    ))
}

#[allow(
    clippy::disallowed_methods,
    reason = "the seam behind Env::connect_unix"
)]
async fn open(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}

#[allow(
    clippy::disallowed_methods,
    reason = "the seam behind Env::listen_unix"
)]
fn bind_private(path: &Path) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Whether nothing but a socket is there, and if there is one.
pub(crate) fn ensure_unused(path: &Path) -> io::Result<bool> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(named("listen on", path, &error)),
        Ok(metadata) => metadata.file_type(),
    };
    if !kind.is_socket() {
        let cause = io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a file that is not a socket is there: move it away",
        );
        return Err(named("listen on", path, &cause));
    }
    Ok(true)
}

async fn ensure_free(path: &Path) -> io::Result<()> {
    if ensure_unused(path)? && open(path).await.is_ok() {
        let cause = io::Error::new(io::ErrorKind::AddrInUse, "another process listens there");
        return Err(named("listen on", path, &cause));
    }
    Ok(())
}

/// A short name in the same directory: the whole path of a socket may have 107 bytes only.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    path.with_file_name(format!(".w{:x}.{number:x}", std::process::id()))
}

pub(crate) fn named(what: &str, path: &Path, cause: &io::Error) -> io::Error {
    io::Error::new(
        cause.kind(),
        format!("cannot {what} {}: {cause}", path.display()),
    )
}
