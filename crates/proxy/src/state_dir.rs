//! The state directory: who this sidecar is and what it last ran, across restarts.
//!
//! | file | content | mode |
//! |---|---|---|
//! | `lock` | held while a process uses the directory | 0600 |
//! | `handover.sock` | where the next process asks for its place (`crate::handover`) | 0600 |
//! | `instance` | the instance's name, made once | 0600 |
//! | `pin` | the root's pin that it joined by | 0600 |
//! | `svid.pem` | certificate chain and private key | 0600 |
//! | `bundles.json` | trust bundles (SPIFFE Bundle Map) | 0600 |
//! | `snapshot.json` | what was in force last | 0600 |
//!
//! With an identity from elsewhere there is no `svid.pem`, and `bundles.json` is what the control node says alone.
//!
//! Each file is replaced whole or not at all. While a sidecar joins, there is for a moment a file `room`.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;
use weft_certs::{BundleSet, RootPin, X509Svid};
use weft_env::{Disk, DiskError, Env, LockGuard, Mode};

use weft_transport::ResetKey;

use crate::Error;

/// Larger than any SVID, bundle or name that weft writes.
const MAX_SMALL: usize = 1024 * 1024;
/// A few frames of the wire: a saved snapshot is what one `whole` update brings.
const MAX_SNAPSHOT: usize = 2 * weft_wire::MAX_FRAME;

/// More than SVID, bundles, name and key of one that has just joined take, in bytes.
const ROOM: usize = 64 * 1024;

/// How long a process that has died may hold its lock: the kernel may have much memory to clear.
const DYING: Duration = Duration::from_secs(2);
/// There is no event to wait for: the lock may be that of any process.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// What was in force when it was saved: the pushed map, without trust (which has its own file).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct SavedSnapshot {
    /// Revision of the config.
    pub(crate) revision: u64,
    /// Keys of `config/`, `endpoint/` and `service/` with their values.
    pub(crate) keys: BTreeMap<String, serde_json::Value>,
}

/// What the directory held at the start.
pub(crate) struct Saved {
    pub(crate) instance: String,
    /// The root's pin that it joined by; `None` also for one that joined before this was kept.
    pub(crate) pin: Option<RootPin>,
    pub(crate) identity: Option<(X509Svid, BundleSet)>,
    pub(crate) snapshot: Option<SavedSnapshot>,
}

/// The directory, locked for this process.
#[derive(Debug)]
pub(crate) struct StateDir {
    dir: PathBuf,
    /// This start made it.
    made: bool,
    /// Given away once another process has taken over.
    lock: Mutex<Option<LockGuard>>,
}

impl StateDir {
    /// Like [`Self::open`], after the process that had the directory has died: the kernel gives its lock back last, a
    /// moment after others have seen it go.
    pub(crate) async fn inherit(env: &Env, dir: &Path) -> Result<Self, Error> {
        let began = Instant::now();
        loop {
            match Self::open(env, dir).await {
                Err(Error::StateDir {
                    source: DiskError::Locked { .. },
                    ..
                }) if began.elapsed() < DYING => tokio::time::sleep(LOOK_AGAIN).await,
                opened => return opened,
            }
        }
    }

    /// Creates the directory if needed and takes its lock.
    pub(crate) async fn open(env: &Env, dir: &Path) -> Result<Self, Error> {
        let dir = dir.to_owned();
        env.disk(move |disk| {
            let unusable = |source| Error::StateDir {
                dir: dir.clone(),
                source,
            };
            let made = !disk.exists(&dir).map_err(unusable)?;
            disk.create_dir_private(&dir, &["lock", "svid.pem", "bundles.json"])
                .map_err(unusable)?;
            // `WEFT_STATE_DIR` is one name for two roles.
            if disk.exists(&dir.join("store.redb")).map_err(unusable)? {
                return Err(Error::ControlDir { dir });
            }
            let lock = disk.lock(&dir.join("lock")).map_err(unusable)?;
            Ok(Self::locked(dir, made, lock))
        })
        .await
    }

    /// The directory of a process that shares its lock.
    pub(crate) fn take_over(dir: &Path, lock: LockGuard) -> Self {
        Self::locked(dir.to_owned(), false, lock)
    }

    fn locked(dir: PathBuf, made: bool, lock: LockGuard) -> Self {
        Self {
            dir,
            made,
            lock: Mutex::new(Some(lock)),
        }
    }

    /// The lock once more, for the process that is to take over.
    pub(crate) fn share_lock(&self) -> std::io::Result<OwnedFd> {
        let lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = lock.as_ref();
        lock.ok_or(std::io::ErrorKind::NotFound)?.share()
    }

    /// Another process has taken over: nothing is written any more.
    pub(crate) fn leave(&self) {
        *self.lock.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The bundles that are saved now: an earlier process follows those of the one that runs.
    pub(crate) async fn bundles(&self, env: &Env) -> Result<BundleSet, Error> {
        let dir = self.dir.clone();
        env.disk(move |disk| load_bundles(disk, &dir)).await
    }

    /// What a control node said last of whom to trust, of a sidecar whose identity comes from elsewhere. Nobody, if it
    /// never did.
    pub(crate) async fn pushed_bundles(&self, env: &Env) -> Result<BundleSet, Error> {
        let dir = self.dir.clone();
        env.disk(move |disk| match disk.exists(&dir.join("bundles.json")) {
            Ok(false) => Ok(BundleSet::new()),
            Ok(true) => load_bundles(disk, &dir),
            Err(source) => Err(Error::StateDir { dir, source }),
        })
        .await
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.dir
    }

    /// Reads what was saved. Without an instance name, a new one is made up; it is saved with the identity.
    pub(crate) async fn load(&self, env: &Env) -> Result<Saved, Error> {
        let dir = self.dir.clone();
        let mut fresh = [0; 8];
        env.rng("instance").fill_bytes(&mut fresh);
        let fresh = format!("{:016x}", u64::from_be_bytes(fresh));
        env.disk(move |disk| load(disk, &dir, fresh)).await
    }

    /// The secret by which peers know at once that this sidecar was restarted.
    pub(crate) async fn reset_key(&self, env: &Env) -> Result<ResetKey, Error> {
        let path = self.dir.join("reset.key");
        let mut fresh = [0; 32];
        env.rng("quic-reset").fill_bytes(&mut fresh);
        let key = env.disk(move |disk| disk.secret(&path, fresh)).await;
        key.map(ResetKey).map_err(|source| Error::StateDir {
            dir: self.dir.clone(),
            source,
        })
    }

    /// Whether there is room for what joining brings, found out before a token is spent on it: a disk that is
    /// full, a quota and a file system that has become read-only all refuse the same write.
    pub(crate) async fn check_room(&self, env: &Env) -> Result<(), Error> {
        self.write(env, "room", |disk, path| {
            disk.write_atomic(path, &[0; ROOM], Mode::Secret)?;
            disk.remove(path)
        })
        .await
    }

    /// Saves the name of this instance, of one that has joined.
    pub(crate) async fn save_instance(&self, env: &Env, name: &str) -> Result<(), Error> {
        let name = name.to_owned();
        self.write(env, "instance", move |disk, path| {
            disk.write_atomic(path, name.as_bytes(), Mode::Secret)
        })
        .await
    }

    /// Saves the root's pin by which the mesh was joined.
    pub(crate) async fn save_pin(&self, env: &Env, pin: RootPin) -> Result<(), Error> {
        self.write(env, "pin", move |disk, path| {
            disk.write_atomic(path, pin.to_string().as_bytes(), Mode::Secret)
        })
        .await
    }

    /// Removes the directory, if this start made it and it is as empty as it was.
    pub(crate) async fn give_up(self, env: &Env) {
        let Self { dir, made, lock } = self;
        if made {
            env.disk(move |disk| {
                let _ = disk.remove(&dir.join("lock"));
                // Only an empty directory goes: what is in it is worth keeping.
                let _ = std::fs::remove_dir(&dir);
            })
            .await;
        }
        drop(lock);
    }

    /// Saves bundles and SVID, in the order in which a crash between the two leaves a pair that fits.
    pub(crate) async fn save_identity(
        &self,
        env: &Env,
        svid: &X509Svid,
        bundles: &BundleSet,
    ) -> Result<(), Error> {
        self.save_bundles(env, bundles).await?;
        self.save_svid(env, svid).await
    }

    /// Saves the SVID with its key.
    pub(crate) async fn save_svid(&self, env: &Env, svid: &X509Svid) -> Result<(), Error> {
        let pem = svid.to_pem();
        self.write(env, "svid.pem", move |disk, path| {
            disk.write_atomic(path, pem.as_bytes(), Mode::Secret)
        })
        .await
    }

    /// Saves the trust bundles.
    pub(crate) async fn save_bundles(&self, env: &Env, bundles: &BundleSet) -> Result<(), Error> {
        let json = serde_json::to_vec_pretty(bundles).expect("a bundle map is plain JSON");
        self.write(env, "bundles.json", move |disk, path| {
            disk.write_atomic(path, &json, Mode::Secret)
        })
        .await
    }

    /// Saves what is in force.
    pub(crate) async fn save_snapshot(
        &self,
        env: &Env,
        snapshot: SavedSnapshot,
    ) -> Result<(), Error> {
        self.write(env, "snapshot.json", move |disk, path| {
            let json = serde_json::to_vec(&snapshot).expect("pushed values are plain JSON");
            disk.write_atomic(path, &json, Mode::Secret)
        })
        .await
    }

    async fn write(
        &self,
        env: &Env,
        name: &'static str,
        write: impl FnOnce(&Disk, &Path) -> Result<(), DiskError> + Send + 'static,
    ) -> Result<(), Error> {
        let path = self.dir.join(name);
        env.disk(move |disk| write(disk, &path))
            .await
            .map_err(|source| Error::StateDir {
                dir: self.dir.clone(),
                source,
            })
    }
}

fn load(disk: &Disk, dir: &Path, fresh: String) -> Result<Saved, Error> {
    Ok(Saved {
        instance: load_instance(disk, dir, fresh)?,
        pin: load_pin(disk, dir)?,
        identity: load_identity(disk, dir)?,
        snapshot: load_snapshot(disk, dir)?,
    })
}

fn load_instance(disk: &Disk, dir: &Path, fresh: String) -> Result<String, Error> {
    let path = dir.join("instance");
    if let Some(text) = text(disk, dir, &path)? {
        return match weft_resources::check_label(text.trim()) {
            Ok(()) => Ok(text.trim().to_owned()),
            Err(error) => Err(damaged(&path, &error)),
        };
    }
    Ok(fresh)
}

fn load_pin(disk: &Disk, dir: &Path) -> Result<Option<RootPin>, Error> {
    let path = dir.join("pin");
    let pin = text(disk, dir, &path)?.map(|text| RootPin::parse(text.trim()));
    pin.transpose().map_err(|error| damaged(&path, &error))
}

fn load_identity(disk: &Disk, dir: &Path) -> Result<Option<(X509Svid, BundleSet)>, Error> {
    let svid_path = dir.join("svid.pem");
    let Some(pem) = text(disk, dir, &svid_path)? else {
        return Ok(None);
    };
    let svid = X509Svid::from_pem(&pem).map_err(|error| damaged(&svid_path, &error))?;
    Ok(Some((svid, load_bundles(disk, dir)?)))
}

fn load_bundles(disk: &Disk, dir: &Path) -> Result<BundleSet, Error> {
    let path = dir.join("bundles.json");
    let json = text(disk, dir, &path)?.ok_or_else(|| damaged(&path, &"it is missing"))?;
    serde_json::from_str(&json).map_err(|error| damaged(&path, &error))
}

/// A snapshot that cannot be read is as good as none: the control node sends it again.
fn load_snapshot(disk: &Disk, dir: &Path) -> Result<Option<SavedSnapshot>, Error> {
    let path = dir.join("snapshot.json");
    let read = disk.read_optional(&path, MAX_SNAPSHOT);
    let Some(json) = read.map_err(|source| Error::StateDir {
        dir: dir.to_owned(),
        source,
    })?
    else {
        return Ok(None);
    };
    match serde_json::from_slice(&json) {
        Ok(snapshot) => Ok(Some(snapshot)),
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "the saved snapshot cannot be read and is not used");
            Ok(None)
        }
    }
}

fn text(disk: &Disk, dir: &Path, path: &Path) -> Result<Option<String>, Error> {
    let bytes = disk
        .read_optional(path, MAX_SMALL)
        .map_err(|source| Error::StateDir {
            dir: dir.to_owned(),
            source,
        })?;
    bytes
        .map(|bytes| String::from_utf8(bytes).map_err(|error| damaged(path, &error)))
        .transpose()
}

fn damaged(path: &Path, reason: &dyn std::fmt::Display) -> Error {
    let remedy = match path.file_name().and_then(|name| name.to_str()) {
        // The one is of no use without the other.
        Some("bundles.json") => {
            "remove it and the svid.pem beside it, and join again with a new token (`weft token create`)"
        }
        Some("svid.pem") => "remove it and join again with a new token (`weft token create`)",
        _ => "remove it and start again",
    };
    Error::Damaged {
        path: path.to_owned(),
        reason: reason.to_string(),
        remedy,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_instance_name_is_made_once_and_kept() {
        let env = Env::system();
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&env, dir.path()).await.unwrap();
        let first = state.load(&env).await.unwrap();
        state.save_instance(&env, &first.instance).await.unwrap();
        let second = state.load(&env).await.unwrap();
        assert_eq!(first.instance, second.instance);
        assert_eq!(first.instance.len(), 16);
        assert!(first.identity.is_none() && first.snapshot.is_none());
    }

    #[tokio::test]
    async fn two_processes_cannot_share_a_directory() {
        let env = Env::system();
        let dir = tempfile::tempdir().unwrap();
        let _held = StateDir::open(&env, dir.path()).await.unwrap();
        let error = StateDir::open(&env, dir.path())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains("another process"), "{error}");
    }

    #[tokio::test]
    async fn a_directory_that_others_use_is_refused_and_stays_as_it_is() {
        use std::os::unix::fs::PermissionsExt;
        let env = Env::system();
        let dir = tempfile::tempdir().unwrap();
        let shared = dir.path().join("shared");
        let mode = || std::fs::metadata(&shared).unwrap().permissions().mode() & 0o7777;
        std::fs::create_dir(&shared).unwrap();
        std::fs::write(shared.join("mine"), "").unwrap();
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o1777)).unwrap();
        let error = StateDir::open(&env, &shared).await.unwrap_err().to_string();
        assert!(error.contains("choose a new or an empty one"), "{error}");
        let found: Vec<_> = std::fs::read_dir(&shared).unwrap().collect();
        assert_eq!((mode(), found.len()), (0o1777, 1));
        // An empty one is taken, and a sidecar's own is closed again.
        std::fs::remove_file(shared.join("mine")).unwrap();
        drop(StateDir::open(&env, &shared).await.unwrap());
        assert_eq!(mode(), 0o700);
        std::fs::set_permissions(&shared, PermissionsExt::from_mode(0o755)).unwrap();
        StateDir::open(&env, &shared).await.unwrap();
        assert_eq!(mode(), 0o700);
    }

    #[tokio::test]
    async fn whoever_inherits_waits_for_the_lock_of_the_dead() {
        let env = Env::system();
        let dir = tempfile::tempdir().unwrap();
        let held = StateDir::open(&env, dir.path()).await.unwrap();
        let (inherited, ()) = tokio::join!(StateDir::inherit(&env, dir.path()), async {
            tokio::time::sleep(3 * LOOK_AGAIN).await;
            drop(held);
        });
        let _held = inherited.unwrap();
        let error = StateDir::inherit(&env, dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
    }

    #[tokio::test]
    async fn a_snapshot_comes_back_and_a_broken_one_is_ignored() {
        let env = Env::system();
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&env, dir.path()).await.unwrap();
        let snapshot = SavedSnapshot {
            revision: 7,
            keys: BTreeMap::from([("config/HTTPRoute/default/a".to_owned(), true.into())]),
        };
        state.save_snapshot(&env, snapshot.clone()).await.unwrap();
        assert_eq!(state.load(&env).await.unwrap().snapshot, Some(snapshot));
        std::fs::write(dir.path().join("snapshot.json"), "{").unwrap();
        assert_eq!(state.load(&env).await.unwrap().snapshot, None);
    }

    #[tokio::test]
    async fn a_damaged_identity_is_named_with_the_next_step() {
        let env = Env::system();
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&env, dir.path()).await.unwrap();
        std::fs::write(dir.path().join("svid.pem"), "not pem").unwrap();
        let error = state.load(&env).await.err().unwrap().to_string();
        assert!(
            error.contains("svid.pem") && error.contains("weft token create"),
            "{error}"
        );
    }
}
