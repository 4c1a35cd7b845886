//! The state directory: what is in it, who may use it, and how it comes to be.
//!
//! A directory has a state when its store has the mesh's settings. They are written last, in one
//! transaction with the authority's journal: a directory in which `init` was cut off has none, and the next
//! `init` clears away what is left.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use weft_ca::KeyType;
use weft_certs::{RootPin, SpiffeId, TrustDomain};
use weft_env::{Disk, DiskError, Env, LockGuard, Mode};

use crate::error::ControlError;
use crate::issue::{CERTIFICATES_PER_S, CaService, Keys};
use crate::keys::{KeyAccess, discard, open_keys};
use weft_transport::ResetKey;

use crate::settings::{MeshSettings, SETTINGS};
use crate::store::{Condition, RedbStore, Store, StoreError, Txn};

/// The local socket of the admin API.
pub(crate) const SOCKET: &str = "control.sock";
/// The store.
const STORE: &str = "store.redb";
const RESET_KEY: &str = "reset.key";
/// Keys of the authority.
const KEYS: &str = "ca";
/// There while `init` is at work: without it, keys beside a store that has no mesh are those of a mesh that is lost.
const UNFINISHED: &str = "unfinished";
/// Held while a control node runs.
const LOCK: &str = "lock";

/// What is fixed for the life of a mesh.
#[derive(Debug, Clone)]
pub struct InitConfig {
    /// Name of the trust domain.
    pub trust_domain: TrustDomain,
    /// Life of sidecars' certificates: 1 hour, unless there is a reason.
    pub leaf_ttl: Duration,
    /// Life of the issuing certificate: 30 days.
    pub issuing_ttl: Duration,
    /// Life of the root: 10 years.
    pub root_ttl: Duration,
    /// The longest life of a sidecar's certificate. `None`: 24 hours, or a sixth of the issuing certificate's life.
    pub max_leaf_ttl: Option<Duration>,
    /// Kind of the authority's keys.
    pub key_type: KeyType,
    /// Certificates that are signed per second.
    pub certificates_per_s: u32,
    /// Where the authority's keys are made.
    pub keys: KeyAccess,
}

impl InitConfig {
    /// The defaults for this trust domain.
    #[must_use]
    pub fn new(trust_domain: TrustDomain) -> Self {
        let defaults = weft_ca::CaConfig::new(trust_domain);
        Self {
            trust_domain: defaults.trust_domain,
            leaf_ttl: defaults.leaf_ttl,
            issuing_ttl: defaults.issuing_ttl,
            root_ttl: defaults.root_ttl,
            max_leaf_ttl: None,
            key_type: KeyType::default(),
            certificates_per_s: CERTIFICATES_PER_S,
            keys: KeyAccess::default(),
        }
    }

    fn settings(&self) -> MeshSettings {
        MeshSettings {
            trust_domain: self.trust_domain.clone(),
            leaf_ttl_s: self.leaf_ttl.as_secs(),
            issuing_ttl_s: self.issuing_ttl.as_secs(),
            root_ttl_s: self.root_ttl.as_secs(),
            max_leaf_ttl_s: self.max_leaf_ttl.map(|ttl| ttl.as_secs()),
            key_type: self.key_type,
            certificates_per_s: self.certificates_per_s.max(1),
            site: None,
        }
    }
}

impl Default for InitConfig {
    /// Trust domain `weft.local`.
    fn default() -> Self {
        Self::new(TrustDomain::parse("weft.local").expect("a legal trust domain"))
    }
}

/// What `init` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// Where.
    pub state_dir: PathBuf,
    /// The root's pin, by which joiners know the mesh.
    pub pin: RootPin,
    /// The control node's identity.
    pub spiffe_id: SpiffeId,
}

/// A state directory that this process holds.
pub(crate) struct StateDir {
    pub(crate) path: PathBuf,
    access: KeyAccess,
    _lock: LockGuard,
}

/// What is in a state directory.
pub(crate) struct Opened {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) keys: Keys,
    /// `None`: the directory was never initialised.
    pub(crate) settings: Option<MeshSettings>,
}

/// Makes root, issuing CA and store in a directory that is empty or does not exist. Leaves nothing behind
/// when it fails.
///
/// # Errors
/// [`ControlError::AlreadyInitialised`], [`ControlError::NotEmpty`], [`ControlError::NotOwner`],
/// [`ControlError::StateDir`], [`ControlError::InUse`], or a setting that cannot be.
pub async fn init(
    env: &Env,
    state_dir: &Path,
    config: &InitConfig,
) -> Result<InitReport, ControlError> {
    let settings = config.settings();
    settings.ca_config().validate()?;
    let existed = {
        let path = state_dir.to_owned();
        env.disk(move |disk| check_target(disk, &path)).await?
    };
    let result = make(env, state_dir, &settings, config.keys.clone()).await;
    if result.is_err() && !existed {
        // Only an empty directory goes: what is in it is not ours to remove.
        let path = state_dir.to_owned();
        env.disk(move |_| fs::remove_dir(path)).await.ok();
    }
    result
}

async fn make(
    env: &Env,
    path: &Path,
    settings: &MeshSettings,
    access: KeyAccess,
) -> Result<InitReport, ControlError> {
    let dir = hold(env, path, access).await?;
    if dir.is_initialised(env).await? {
        return Err(ControlError::AlreadyInitialised { dir: dir.path });
    }
    let result = dir.initialise(env, settings).await;
    if result.is_err() {
        let (path, access) = (dir.path.clone(), dir.access.clone());
        env.disk(move |_| {
            clear(&path, &access);
            let _ = fs::remove_file(path.join(UNFINISHED));
            let _ = fs::remove_file(path.join(LOCK));
        })
        .await;
    }
    result
}

/// Takes a directory that has no state, and clears away what an attempt that was cut off has left in it.
pub(crate) async fn hold_empty(
    env: &Env,
    path: &Path,
    access: KeyAccess,
) -> Result<StateDir, ControlError> {
    let target = path.to_owned();
    env.disk(move |disk| check_target(disk, &target)).await?;
    let dir = hold(env, path, access).await?;
    let started = {
        let path = dir.path.clone();
        env.disk(move |disk| disk.exists(&path.join(STORE))).await?
    };
    if started {
        match dir.is_initialised(env).await {
            Ok(true) => return Err(ControlError::AlreadyInitialised { dir: dir.path }),
            // A store that is lost is what a backup is for.
            Ok(false) | Err(ControlError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // What is in a token stays: it may be the keys of the very mesh that is to be restored.
    let path = dir.path.clone();
    env.disk(move |_| clear_files(&path)).await;
    Ok(dir)
}

/// Takes a directory with a state, to run on it. One without is initialised if `missing` says with what.
/// A directory that is not weft's is left as it is.
pub(crate) async fn claim(
    env: &Env,
    path: &Path,
    missing: Option<&InitConfig>,
    access: KeyAccess,
) -> Result<StateDir, ControlError> {
    let target = path.to_owned();
    let may_init = missing.is_some();
    env.disk(move |disk| {
        check_owner(&target)?;
        if may_init {
            return check_target(disk, &target).map(drop);
        }
        match disk.exists(&target.join(STORE)) {
            Ok(true) => Ok(()),
            // What became of their mesh is said below.
            Ok(false)
                if disk
                    .list(&target.join(KEYS))
                    .is_ok_and(|keys| !keys.is_empty()) =>
            {
                Ok(())
            }
            Ok(false) => Err(ControlError::NotInitialised { dir: target }),
            Err(error) => Err(unusable(&target, &error)),
        }
    })
    .await?;
    let dir = hold(env, path, access).await?;
    if !dir.is_initialised(env).await? {
        let Some(config) = missing else {
            return Err(ControlError::NotInitialised { dir: dir.path });
        };
        let settings = config.settings();
        settings.ca_config().validate()?;
        dir.initialise(env, &settings).await?;
    }
    Ok(dir)
}

/// Takes a directory for this process; makes it if it is not there.
pub(crate) async fn hold(
    env: &Env,
    path: &Path,
    access: KeyAccess,
) -> Result<StateDir, ControlError> {
    let path = path.to_owned();
    env.disk(move |disk| {
        check_owner(&path)?;
        let length = path.join(SOCKET).as_os_str().len();
        if length > weft_env::SOCKET_PATH_MAX {
            return Err(ControlError::PathTooLong { dir: path, length });
        }
        disk.create_dir_private(&path, &[LOCK, "store.redb"])
            .map_err(|error| unusable(&path, &error))?;
        match disk.lock(&path.join(LOCK)) {
            Ok(lock) => Ok(StateDir {
                path,
                access,
                _lock: lock,
            }),
            Err(DiskError::Locked { .. }) => Err(ControlError::InUse { dir: path }),
            Err(error) => Err(unusable(&path, &error)),
        }
    })
    .await
}

impl StateDir {
    /// Whether it has the state of a mesh. Makes nothing.
    pub(crate) async fn is_initialised(&self, env: &Env) -> Result<bool, ControlError> {
        let path = self.path.clone();
        let (store, keys) = env
            .disk(move |disk| {
                let keys = disk.list(&path.join(KEYS));
                let keys = keys.is_ok_and(|keys| !keys.is_empty());
                let unfinished = disk.exists(&path.join(UNFINISHED))?;
                let store = disk.exists(&path.join(STORE))?;
                Ok::<_, DiskError>((store, keys && !unfinished))
            })
            .await?;
        let mesh = store && self.has_mesh(env).await?;
        match (mesh, keys) {
            (false, true) => Err(ControlError::Damaged {
                what: format!(
                    "{} has the keys of an authority and no {STORE} with its mesh",
                    self.path.display()
                ),
            }),
            _ => Ok(mesh),
        }
    }

    /// Whether there is a mesh in the store, which is there.
    async fn has_mesh(&self, env: &Env) -> Result<bool, ControlError> {
        let file = self.path.join(STORE);
        if let Some(holds) = RedbStore::peek(env, &file, SETTINGS).await {
            return Ok(holds);
        }
        let store = RedbStore::open(env, &file).await;
        let store = store.map_err(|error| ControlError::of_store(&self.path, error))?;
        Ok(MeshSettings::load(&store).await?.is_some())
    }

    /// Makes room for a state: an empty store and a place for keys, marked as unfinished until
    /// [`finished`](Self::finished). What a cut-off attempt has left is cleared away first.
    pub(crate) async fn begin(
        &self,
        env: &Env,
        domain: &TrustDomain,
    ) -> Result<Opened, ControlError> {
        let (path, access) = (self.path.clone(), self.access.clone());
        env.disk(move |disk| {
            disk.write_atomic(&path.join(UNFINISHED), b"", Mode::Secret)?;
            clear(&path, &access);
            Ok::<_, DiskError>(())
        })
        .await
        .map_err(|error| unusable(&self.path, &error))?;
        self.open_as(env, Some(domain.to_string())).await
    }

    /// Makes the state.
    pub(crate) async fn initialise(
        &self,
        env: &Env,
        settings: &MeshSettings,
    ) -> Result<InitReport, ControlError> {
        let Opened { store, keys, .. } = self.begin(env, &settings.trust_domain).await?;
        let txn = Txn::new()
            .when(Condition::Absent(SETTINGS.to_owned()))
            .put(SETTINGS, serde_json::to_vec(settings).unwrap_or_default());
        let (txn, pin) = CaService::create(env, keys, settings, txn).await?;
        store.commit(txn).await?;
        self.finished(env).await;
        tracing::info!(dir = %self.path.display(), %pin, "a mesh was made");
        Ok(InitReport {
            state_dir: self.path.clone(),
            pin,
            spiffe_id: settings.own_id(),
        })
    }

    /// Takes the mark of an unfinished `init` away.
    pub(crate) async fn finished(&self, env: &Env) {
        let path = self.path.join(UNFINISHED);
        // If it stays, the next start takes it away.
        let _ = env.disk(move |disk| disk.remove(&path)).await;
    }

    /// Opens store and keys.
    pub(crate) async fn open(&self, env: &Env) -> Result<Opened, ControlError> {
        self.open_as(env, None).await
    }

    /// The same. Keys in a token are named after `name` if there are none yet.
    async fn open_as(&self, env: &Env, name: Option<String>) -> Result<Opened, ControlError> {
        let store = RedbStore::open(env, &self.path.join(STORE)).await;
        let store = store.map_err(|error| ControlError::of_store(&self.path, error))?;
        let settings = MeshSettings::load(&store).await?;
        if settings.is_some() {
            self.finished(env).await;
        }
        let (path, access) = (self.path.join(KEYS), self.access.clone());
        let domain = settings.as_ref().map(|s| s.trust_domain.to_string());
        let name = name.or(domain).unwrap_or_default();
        let mut rng = env.rng("ca-token");
        let keys = env.disk(move |_| open_keys(&path, &access, &name, &mut rng));
        Ok(Opened {
            keys: keys.await?,
            store: Arc::new(store),
            settings,
        })
    }

    /// The secret by which sidecars know at once that this node was restarted.
    pub(crate) async fn reset_key(&self, env: &Env) -> Result<ResetKey, ControlError> {
        let path = self.path.join(RESET_KEY);
        let mut fresh = [0; 32];
        env.rng("quic-reset").fill_bytes(&mut fresh);
        let key = env.disk(move |disk| disk.secret(&path, fresh)).await;
        key.map(ResetKey).map_err(ControlError::Disk)
    }

    /// Where the authority's keys are.
    pub(crate) fn keys(&self) -> PathBuf {
        self.path.join(KEYS)
    }

    /// Where the store is.
    pub(crate) fn store(&self) -> PathBuf {
        self.path.join(STORE)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path.join(SOCKET)
    }
}

/// That a directory, if it is there, is ours and has nothing in it but what weft puts there.
pub(crate) async fn check_mine(env: &Env, path: &Path) -> Result<(), ControlError> {
    let path = path.to_owned();
    env.disk(move |disk| check_target(disk, &path).map(drop))
        .await
}

/// Whether the directory exists. It must be ours, and hold nothing but what weft puts there.
fn check_target(disk: &Disk, path: &Path) -> Result<bool, ControlError> {
    check_owner(path)?;
    if !disk.exists(path).map_err(|error| unusable(path, &error))? {
        return Ok(false);
    }
    let known = [
        STORE,
        KEYS,
        RESET_KEY,
        UNFINISHED,
        LOCK,
        SOCKET,
        "lost+found",
    ];
    for entry in disk.list(path).map_err(|error| unusable(path, &error))? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy();
        if !known.contains(&name.as_ref()) {
            return Err(ControlError::NotEmpty {
                dir: path.to_owned(),
            });
        }
    }
    Ok(true)
}

/// A directory of another user is not ours to use, even where root could.
fn check_owner(path: &Path) -> Result<(), ControlError> {
    let me = rustix::process::geteuid().as_raw();
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(ControlError::StateDir {
            dir: path.to_owned(),
            reason: "it is not a directory".to_owned(),
        }),
        Ok(metadata) if metadata.uid() != me => Err(ControlError::NotOwner {
            dir: path.to_owned(),
            owner: metadata.uid(),
            me,
        }),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(ControlError::StateDir {
            dir: path.to_owned(),
            reason: words(&error),
        }),
    }
}

fn unusable(path: &Path, error: &DiskError) -> ControlError {
    let reason = match error {
        DiskError::Io { source, .. } => words(source),
        other => other.to_string(),
    };
    ControlError::StateDir {
        dir: path.to_owned(),
        reason,
    }
}

fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::ReadOnlyFilesystem => "the file system is read-only".to_owned(),
        io::ErrorKind::NotADirectory => "a part of the path is not a directory".to_owned(),
        io::ErrorKind::StorageFull => "the disk is full".to_owned(),
        _ => error.to_string(),
    }
}

/// Removes what an unfinished `init` has made. What cannot be removed does not change the outcome.
fn clear(path: &Path, access: &KeyAccess) {
    discard(&path.join(KEYS), access);
    clear_files(path);
}

fn clear_files(path: &Path) {
    let _ = fs::remove_file(path.join(STORE));
    let _ = fs::remove_dir_all(path.join(KEYS));
}

impl ControlError {
    /// Says "another control node" where the store's file says so too.
    pub(crate) fn of_store(dir: &Path, error: StoreError) -> Self {
        match error {
            StoreError::InUse { .. } => Self::InUse {
                dir: dir.to_owned(),
            },
            other => Self::Store(other),
        }
    }
}

#[cfg(test)]
mod tests;
