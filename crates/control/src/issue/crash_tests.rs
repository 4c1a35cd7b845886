//! A rotation that is killed at every step: before and after each write to the store and to the key store. Whatever
//! is found at the restart goes on to the same end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::timeout;
use weft_ca::{
    Error as CaError, KeyId, KeyStore, KeyType, MemoryKeyStore, Signer, SlotState, Tier,
};
use weft_certs::{BundleSet, SpiffeId, Usage, verify_chain};
use weft_env::{Env, Tasks};
use zeroize::Zeroizing;

use super::verbs::roll_back;
use super::*;
use crate::admin::types::{Phase, RotateCa};
use crate::audit::Audit;
use crate::registry::Registry;
use crate::store::{BoxFuture, Entry, Range, RedbStore, Revision, Store, StoreError, Txn, Watch};

const PROMPT: Duration = Duration::from_secs(30);

/// Counts writes, and dies at one of them.
#[derive(Default)]
struct Death {
    writes: AtomicUsize,
    /// Which write, and whether it is done before the end.
    at: Mutex<Option<(usize, bool)>>,
}

enum Fate {
    Live,
    DieBefore,
    DieAfter,
}

impl Death {
    fn next(&self) -> Fate {
        let number = self.writes.fetch_add(1, Ordering::SeqCst);
        match *self.at.lock().unwrap() {
            Some((at, _)) if number > at => Fate::DieBefore,
            Some((at, true)) if number == at => Fate::DieAfter,
            Some((at, false)) if number == at => Fate::DieBefore,
            _ => Fate::Live,
        }
    }

    fn plan(&self, at: Option<(usize, bool)>) {
        self.writes.store(0, Ordering::SeqCst);
        *self.at.lock().unwrap() = at;
    }

    fn happened(&self) -> bool {
        let writes = self.writes.load(Ordering::SeqCst);
        self.at.lock().unwrap().is_some_and(|(at, _)| writes > at)
    }
}

struct DyingStore(RedbStore, Arc<Death>);

fn dead() -> StoreError {
    StoreError::Io {
        path: "store".into(),
        reason: "the process was killed".into(),
    }
}

impl Store for DyingStore {
    fn get<'a>(&'a self, key: &'a str) -> BoxFuture<'a, Result<Option<Entry>, StoreError>> {
        self.0.get(key)
    }

    fn range<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Range, StoreError>> {
        self.0.range(prefix)
    }

    fn commit(&self, txn: Txn) -> BoxFuture<'_, Result<Revision, StoreError>> {
        match self.1.next() {
            Fate::Live => self.0.commit(txn),
            Fate::DieBefore => Box::pin(async { Err(dead()) }),
            Fate::DieAfter => Box::pin(async {
                self.0.commit(txn).await?;
                Err(dead())
            }),
        }
    }

    fn watch(&self, prefix: &str, from: Revision) -> Box<dyn Watch> {
        self.0.watch(prefix, from)
    }
}

struct DyingKeys(Arc<MemoryKeyStore>, Arc<Death>);

impl DyingKeys {
    fn write<T>(
        &self,
        id: &KeyId,
        write: impl FnOnce() -> Result<T, CaError>,
    ) -> Result<T, CaError> {
        let killed = || CaError::KeyMissing { key: id.clone() };
        match self.1.next() {
            Fate::Live => write(),
            Fate::DieBefore => Err(killed()),
            Fate::DieAfter => write().and_then(|_| Err(killed())),
        }
    }
}

impl KeyStore for DyingKeys {
    fn generate(&self, id: &KeyId, kind: KeyType) -> Result<Signer, CaError> {
        self.write(id, || self.0.generate(id, kind))
    }

    fn signer(&self, id: &KeyId) -> Result<Signer, CaError> {
        self.0.signer(id)
    }

    fn remove(&self, id: &KeyId) -> Result<(), CaError> {
        self.write(id, || self.0.remove(id))
    }

    fn export(&self, id: &KeyId) -> Result<Zeroizing<Vec<u8>>, CaError> {
        self.0.export(id)
    }

    fn import(&self, id: &KeyId, pkcs8: Zeroizing<Vec<u8>>) -> Result<(), CaError> {
        self.write(id, || self.0.import(id, pkcs8))
    }
}

/// What survives a crash.
struct Disk {
    env: Env,
    store: RedbStore,
    keys: Arc<MemoryKeyStore>,
    death: Arc<Death>,
    _dir: tempfile::TempDir,
}

/// What does not.
struct Process {
    ca: CaService,
    rotations: Rotations,
    tasks: Tasks,
}

impl Disk {
    async fn new() -> Self {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let path = dir.path().join("store.redb");
        let store = RedbStore::open(&env, &path).await.unwrap();
        let keys = Arc::new(MemoryKeyStore::new());
        let settings = crate::testing::settings();
        let created = CaService::create(&env, keys.clone(), &settings, Txn::new());
        let (txn, _) = created.await.unwrap();
        store.commit(txn).await.unwrap();
        Self {
            env,
            store,
            keys,
            death: Arc::default(),
            _dir: dir,
        }
    }

    async fn boot(&self) -> Result<Process, crate::ControlError> {
        let death = self.death.clone();
        let store: Arc<dyn Store> = Arc::new(DyingStore(self.store.clone(), death.clone()));
        let keys: Keys = Arc::new(DyingKeys(self.keys.clone(), death));
        let settings = crate::testing::settings();
        let audit = Audit::load(&self.env, store.clone()).await?;
        let ca = CaService::load(&self.env, store, keys, &settings, audit).await?;
        let own = OwnIdentity::new(&self.env, ca.clone(), settings.own_id()).await?;
        let registry = Registry::new(PROMPT, crate::testing::clock());
        let tasks = Tasks::new(&self.env);
        let rotations = Rotations::new(ca.clone(), own, registry, tasks.clone());
        Ok(Process {
            ca,
            rotations,
            tasks,
        })
    }
}

impl Process {
    /// Rotates, or finishes what is stored. The phase that it ends in.
    async fn rotate(&self, rotation: Rotation) -> Option<Phase> {
        let started = self.rotations.start(rotation, "test").await;
        let mut progress = started.ok()?;
        let ended = progress.wait_for(|progress| progress.finished);
        let phase = timeout(PROMPT, ended).await.expect("it ends in time");
        phase.ok().map(|progress| progress.phase)
    }

    /// Whoever trusts the present bundle accepts what is issued now; so does who slept since the begin, as long as the
    /// root of then is there.
    fn check(&self, asleep: &BundleSet) {
        let id = SpiffeId::parse("spiffe://weft.local/ns/default/sa/x").unwrap();
        let csr = weft_ca::make_csr(None).unwrap().csr;
        let (authority, now) = (self.ca.authority(), self.ca.wall());
        let mut rng = Env::system().rng("test");
        let issued = authority.issue(&csr, &id, None, now, &mut rng).unwrap();
        verify_chain(&issued.chain, &self.ca.bundles(), now, Usage::Server).unwrap();
        let first = authority.journal().slot(Tier::Root, "root-1").unwrap();
        if first.is_live() {
            verify_chain(&issued.chain, asleep, now, Usage::Server).unwrap();
        }
    }
}

async fn killed_everywhere(request: RotateCa) -> usize {
    let mut cut = 0;
    for at in 0.. {
        let mut was_cut = false;
        for after in [false, true] {
            let disk = Disk::new().await;
            let first = disk.boot().await.unwrap();
            let known = first.ca.bundles();
            disk.death.plan(Some((at, after)));
            first.rotate(Rotation::Authority(request.clone())).await;
            let happened = disk.death.happened();
            was_cut |= happened;
            first.tasks.shutdown(PROMPT).await;

            disk.death.plan(None);
            let again = disk
                .boot()
                .await
                .expect("it starts again, whatever was cut");
            again.check(&known);
            if again.rotations.stored().await.unwrap().is_some() {
                let phase = again.rotate(Rotation::Resume).await;
                assert_eq!(phase, Some(Phase::Done), "cut at {at}, after: {after}");
            } else {
                roll_back(&again.ca).await.unwrap();
            }
            finished(&disk, &again, happened, at).await;
            again.tasks.shutdown(PROMPT).await;
        }
        if !was_cut {
            break;
        }
        cut += 1;
    }
    cut
}

/// Either all of it happened, with evidence, or none of it did; and no key is left that nobody knows.
async fn finished(disk: &Disk, process: &Process, happened: bool, at: usize) {
    let authority = process.ca.authority();
    let journal = authority.journal();
    let evidence = list_evidence(&disk.store).await.unwrap();
    let rotated = journal.active(Tier::Issuing).unwrap().id == "issuing-2";
    assert_eq!(evidence.len(), usize::from(rotated), "cut at {at}");
    assert!(rotated || happened, "without a crash it ends");
    for tier in [Tier::Root, Tier::Issuing] {
        let live = journal.slots(tier).iter().filter(|s| s.is_live());
        assert!(
            live.clone().all(|s| s.state == SlotState::Active),
            "cut at {at}"
        );
        assert_eq!(live.count(), 1);
    }
    let mut known: Vec<_> = journal.keys().cloned().collect();
    known.sort();
    assert_eq!(disk.keys.names(), known, "cut at {at}");
}

#[tokio::test]
async fn an_issuing_rotation_that_is_killed_at_any_write_goes_on_or_never_was() {
    let cut = killed_everywhere(RotateCa::default()).await;
    assert!(cut >= 8, "only {cut} writes");
}

#[tokio::test]
async fn a_root_rotation_that_is_killed_at_any_write_goes_on_or_never_was() {
    let request = RotateCa {
        root: true,
        now: true,
        ..RotateCa::default()
    };
    let cut = killed_everywhere(request).await;
    assert!(cut >= 14, "only {cut} writes");
}
