//! What a run holds of the machine, and who gives it back.
//!
//! Namespaces outlive the process that made them, so somebody must remove them even when that process is
//! killed with no time to act. Three hold on to it, each for when the one before cannot:
//!
//! 1. the run itself, at its end;
//! 2. a **watcher**, a process of this executable in a session of its own. It waits for a pipe to end whose
//!    other end only the run holds, however the run ends, and then removes everything;
//! 3. the next start: each run and its watcher hold a lock on the file that names the run
//!    (`/run/weft-netsim/ID.lock`); a file that nobody holds belongs to nobody, and is swept with all that
//!    bears its name.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use rustix::fs::{FlockOperation, flock};
use weft_netsim_tun::Namespace;

use crate::failure::Failure;
use crate::processes;

const DIRECTORY: &str = "/run/weft-netsim";
/// How every namespace of a run begins; what has another name is never touched.
const PREFIX: &str = "weftsim";
/// The hidden subcommand of the watcher.
pub(crate) const WATCH: &str = "__watch";

/// A run's hold. Dropping it gives everything back.
#[derive(Debug)]
pub(crate) struct Lease {
    id: String,
    _lock: File,
    watcher: Child,
    pipe: Option<ChildStdin>,
}

impl Lease {
    /// Sweeps what earlier runs left, and takes a hold for this one.
    ///
    /// # Errors
    /// [`Failure::Io`] if the machine has no room for the lock or the watcher.
    pub(crate) fn take() -> Result<Self, Failure> {
        let next = "make sure that /run is writable and start again";
        let failed = |what: &'static str| Failure::io(what, next);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(DIRECTORY)
            .map_err(failed("make /run/weft-netsim"))?;
        // One start at a time: between making a lock's file and locking it, it looks abandoned.
        let starts = open_lock(&Path::new(DIRECTORY).join("starts"))
            .map_err(failed("open /run/weft-netsim/starts"))?;
        flock(&starts, FlockOperation::LockExclusive)
            .map_err(|error| failed("lock /run/weft-netsim/starts")(error.into()))?;
        sweep();

        let id = std::process::id().to_string();
        let path = lock_path(&id);
        let lock = open_lock(&path).map_err(failed("make the lock of this run"))?;
        flock(&lock, FlockOperation::LockShared)
            .map_err(|error| failed("take the lock of this run")(error.into()))?;
        let mut watcher = start_watcher(&id).map_err(failed("start the watcher"))?;
        let pipe = watcher.stdin.take();
        // Its one byte says that it holds the lock, too, and no signal of this terminal can reach it.
        let heard = match watcher.stdout.take() {
            Some(mut out) => out.read_exact(&mut [0]),
            None => Err(std::io::ErrorKind::BrokenPipe.into()),
        };
        heard.map_err(failed("hear from the watcher"))?;
        Ok(Self {
            id,
            _lock: lock,
            watcher,
            pipe,
        })
    }

    /// The run's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// How the run's namespaces begin.
    pub(crate) fn prefix(&self) -> String {
        format!("{PREFIX}-{}", self.id)
    }

    /// Ends the processes of the run that are left.
    pub(crate) fn end_processes(&self) {
        processes::end(&self.id, &namespaces_of(&self.id));
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.pipe.take());
        // Its work is bounded (`processes::end`, then one `ip` for each namespace).
        let _ = self.watcher.wait();
    }
}

fn start_watcher(id: &str) -> std::io::Result<Child> {
    Command::new("/proc/self/exe")
        .args([WATCH, id])
        // Without this run's variables it is not taken for a process of an outer run.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
}

/// The watcher: waits for the run to end, however it ends, and removes what it left.
///
/// # Errors
/// [`Failure::Usage`] if it was started by hand.
pub(crate) fn watch(id: &str) -> Result<(), Failure> {
    let by_hand = || Failure::Usage(format!("{WATCH} is for weft-netsim itself; see --help"));
    if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(by_hand());
    }
    let lock = File::open(lock_path(id)).map_err(|_| by_hand())?;
    flock(&lock, FlockOperation::NonBlockingLockShared).map_err(|_| by_hand())?;
    // Out of reach of the terminal: Ctrl-C and hang-up go to the run's session.
    rustix::process::setsid().map_err(|_| by_hand())?;
    let mut out = std::io::stdout();
    out.write_all(b".")
        .and_then(|()| out.flush())
        .map_err(|_| by_hand())?;

    let mut rest = Vec::new();
    // Whatever ends the pipe, an error too, means that the run is gone.
    let _ = std::io::stdin().lock().read_to_end(&mut rest);
    remove(id);
    Ok(())
}

/// Removes what runs left whose lock nobody holds.
fn sweep() {
    let Ok(entries) = fs::read_dir(DIRECTORY) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_suffix(".lock")) else {
            continue;
        };
        if id.is_empty() || !id.bytes().all(|b| b.is_ascii_digit()) {
            continue;
        }
        if let Ok(lock) = File::open(entry.path())
            && flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok()
        {
            remove(id);
        }
    }
}

/// Removes all that belongs to the run: processes, namespaces, and last the name that leads to them.
fn remove(id: &str) {
    let namespaces = namespaces_of(id);
    processes::end(id, &namespaces);
    for name in namespaces {
        if let Ok(namespace) = Namespace::existing(&name) {
            // Gone in between is gone.
            let _ = namespace.delete();
        }
    }
    let _ = fs::remove_file(lock_path(id));
}

/// The names of a run's namespaces.
fn namespaces_of(id: &str) -> Vec<String> {
    let prefix = format!("{PREFIX}-{id}-");
    let Ok(entries) = fs::read_dir("/run/netns") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(&prefix))
        .collect()
}

fn lock_path(id: &str) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{id}.lock"))
}

fn open_lock(path: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .mode(0o600)
        .open(path)
}
