//! The authority with its journal in the store: what is signed now, and the steps of its rotation.
//!
//! `signing` is what it does, `stored` how it is kept, `shown` how it is told.

mod shown;
mod signing;
mod stored;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use weft_ca::audit::Event;
use weft_ca::{Authority, CaConfig, Error as CaError, Journal, KeyStore};
use weft_certs::{BundleSet, RevocationList, RootPin, SpiffeId, TrustBundle};
use weft_env::{Env, Rng};

use super::ledger::Ledger;
use super::limit::RateLimit;
use crate::audit::Audit;
use crate::error::ControlError;
use crate::problem::Reject;
use crate::settings::MeshSettings;
use crate::store::{Condition, Revision, Store, StoreError, Txn, json};
use shown::transitions;
pub(crate) use stored::read_journal;
use stored::{load, read_followed, read_ledger, trust_entry};

/// Where the journal is kept.
pub(crate) const JOURNAL: &str = "ca/journal";
/// Where it is kept what is revoked.
const LEDGER: &str = "ca/revoked";

/// Signatures at a time by keys that are outside of this process.
const SIGNING: usize = 4;

/// Keys live here, apart from the store.
pub(crate) type Keys = Arc<dyn KeyStore>;

/// Signs for the mesh. Cheap to clone.
#[derive(Clone)]
pub(crate) struct CaService {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    store: Arc<dyn Store>,
    keys: Keys,
    config: CaConfig,
    current: Mutex<Current>,
    limit: Mutex<RateLimit>,
    rng: Mutex<Rng>,
    /// Those who wait for keys outside of this process: each holds a thread that may wait.
    waiting: Semaphore,
    /// One transition of the journal at a time.
    changing: tokio::sync::Mutex<()>,
    audit: Audit,
    /// Counts changes of whom the mesh trusts.
    trust: watch::Sender<u64>,
}

#[derive(Clone)]
struct Current {
    authority: Arc<Authority>,
    /// The revision that wrote its journal.
    journal: Revision,
    ledger: Arc<Ledger>,
    /// The ledger in the form that is pushed.
    revoked: Arc<RevocationList>,
    /// At a delegate: the bundle as the control node pushed it. `None`: the authority's own.
    followed: Option<TrustBundle>,
}

/// A step of the journal.
pub(crate) type Step = Box<
    dyn FnOnce(&Authority, &dyn KeyStore, SystemTime, &mut Rng) -> Result<Journal, CaError> + Send,
>;

/// What is committed along with a step, or not at all.
#[derive(Default)]
pub(crate) struct Along {
    pub(crate) txn: Txn,
    pub(crate) events: Vec<Event>,
}

impl Along {
    /// One record of the audit log.
    pub(crate) fn event(event: Event) -> Self {
        Self {
            txn: Txn::new(),
            events: vec![event],
        }
    }
}

impl CaService {
    /// Makes root and issuing CA, and writes their journal and trust bundle into `txn`. The keys are on
    /// disk when this returns.
    pub(crate) async fn create(
        env: &Env,
        keys: Keys,
        settings: &MeshSettings,
        txn: Txn,
    ) -> Result<(Txn, RootPin), ControlError> {
        let (config, now) = (settings.ca_config(), env.wall());
        let mut rng = env.rng("ca");
        let authority = env
            .disk(move |_| {
                let journal = Authority::create(&config, &*keys, now, &mut rng)?;
                Authority::load(config, journal, &*keys)
            })
            .await?;
        let (trust_key, bundle) = trust_entry(&authority.bundle());
        let txn = txn
            .put(JOURNAL, json(authority.journal()))
            .put(trust_key, bundle);
        Ok((txn, authority.pin()?))
    }

    /// Goes on from the stored journal.
    pub(crate) async fn load(
        env: &Env,
        store: Arc<dyn Store>,
        keys: Keys,
        settings: &MeshSettings,
        audit: Audit,
    ) -> Result<Self, ControlError> {
        let (journal, journal_revision) = read_journal(&*store).await?;
        let config = settings.ca_config();
        let authority = load(env, config.clone(), journal, keys.clone()).await?;
        let mut ledger = read_ledger(&*store).await?;
        let mut followed = None;
        if authority.site().is_some() {
            let (bundle, list) = read_followed(&*store, &config.trust_domain).await?;
            (followed, ledger) = (bundle, Ledger::followed(&list));
        }
        let rate = settings.certificates_per_s;
        let service = Self {
            shared: Arc::new(Shared {
                env: env.clone(),
                store,
                keys,
                config,
                current: Mutex::new(Current {
                    authority: Arc::new(authority),
                    journal: journal_revision,
                    revoked: Arc::new(ledger.list()),
                    ledger: Arc::new(ledger),
                    followed,
                }),
                limit: Mutex::new(RateLimit::new(rate, Instant::now())),
                rng: Mutex::new(env.rng("ca")),
                waiting: Semaphore::new(SIGNING),
                changing: tokio::sync::Mutex::new(()),
                audit,
                trust: watch::Sender::new(0),
            }),
        };
        service.publish_trust().await?;
        Ok(service)
    }

    fn current(&self) -> Current {
        self.shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The authority as it is now.
    pub(crate) fn authority(&self) -> Arc<Authority> {
        self.current().authority
    }

    /// The audit log.
    pub(crate) fn audit(&self) -> &Audit {
        &self.shared.audit
    }

    /// The store that holds all of it.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.shared.store
    }

    /// Where its keys are.
    pub(crate) fn keys(&self) -> Keys {
        self.shared.keys.clone()
    }

    /// The settings.
    pub(crate) fn config(&self) -> &CaConfig {
        &self.shared.config
    }

    /// The node's wall clock.
    pub(crate) fn wall(&self) -> SystemTime {
        self.shared.env.wall()
    }

    /// Tells when it changes whom the mesh trusts.
    pub(crate) fn trust_changes(&self) -> watch::Receiver<u64> {
        self.shared.trust.subscribe()
    }

    /// Takes a step: the next journal is stored before anything follows from it, with the bundle that it makes, the
    /// records of it, and what `along` adds.
    pub(crate) async fn step(
        &self,
        step: Step,
        along: impl FnOnce(&Journal) -> Along + Send,
    ) -> Result<Revision, ControlError> {
        let _one = self.shared.changing.lock().await;
        self.catch_up().await?;
        let before = self.current();
        let (keys, now) = (self.shared.keys.clone(), self.shared.env.wall());
        let mut rng = self.shared.env.rng("ca-step");
        let authority = before.authority.clone();
        let journal = self
            .shared
            .env
            .disk(move |_| step(&authority, &*keys, now, &mut rng))
            .await?;
        let Along { txn, mut events } = along(&journal);
        events.extend(transitions(before.authority.journal(), &journal));
        let mut txn = txn
            .when(Condition::At(JOURNAL.to_owned(), before.journal))
            .put(JOURNAL, json(&journal));
        // A delegate hands on the bundle that it was given.
        if journal.bundle() != before.authority.bundle() && before.authority.site().is_none() {
            let (key, value) = trust_entry(&journal.bundle());
            txn = txn.put(key, value);
        }
        let revision = self.shared.audit.commit(txn, events).await?;
        self.take_over(journal, revision).await?;
        Ok(revision)
    }

    /// Goes on from a journal that is stored.
    async fn take_over(&self, journal: Journal, revision: Revision) -> Result<(), ControlError> {
        let shared = &self.shared;
        let loaded = load(
            &shared.env,
            shared.config.clone(),
            journal,
            shared.keys.clone(),
        )
        .await?;
        {
            let mut current = self.lock();
            current.authority = Arc::new(loaded);
            current.journal = revision;
        }
        shared.trust.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Keys may be out of reach just when a step is stored: the step holds, and is taken over later.
    async fn catch_up(&self) -> Result<(), ControlError> {
        let (journal, revision) = read_journal(&**self.store()).await?;
        match revision == self.current().journal {
            true => Ok(()),
            false => self.take_over(journal, revision).await,
        }
    }

    /// [`catch_up`](Self::catch_up), for the upkeep.
    pub(crate) async fn keep_up(&self) -> Result<(), ControlError> {
        let _one = self.shared.changing.lock().await;
        self.catch_up().await
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Current> {
        // Each change is a few fields put in place.
        self.shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// At a delegate: trusts, and distrusts, as the control node has pushed it.
    pub(crate) async fn take_trust(&self) -> Result<(), ControlError> {
        let domain = &self.shared.config.trust_domain;
        let (bundle, list) = read_followed(&**self.store(), domain).await?;
        {
            let mut current = self.lock();
            if current.followed == bundle && *current.revoked == list {
                return Ok(());
            }
            current.followed = bundle;
            current.ledger = Arc::new(Ledger::followed(&list));
            current.revoked = Arc::new(list);
        }
        self.shared.trust.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Brings the stored bundle, which is pushed, to what the authority says.
    async fn publish_trust(&self) -> Result<(), ControlError> {
        if self.authority().site().is_some() {
            return Ok(());
        }
        let (key, value) = trust_entry(&self.authority().bundle());
        let stored = self.shared.store.get(&key).await?;
        if stored.is_some_and(|stored| stored.value == value) {
            return Ok(());
        }
        self.shared.store.commit(Txn::new().put(key, value)).await?;
        Ok(())
    }

    /// The revision that brought the present bundle, and its edition.
    pub(crate) async fn bundle_revision(&self) -> Result<(Revision, u64), ControlError> {
        let bundle = self.authority().bundle();
        let (key, _) = trust_entry(&bundle);
        let entry = self.shared.store.get(&key).await?;
        let revision = entry.map_or(0, |entry| entry.mod_revision);
        Ok((revision, bundle.sequence))
    }

    /// Whether an identity gets nothing at all.
    pub(crate) fn bars(&self, id: &SpiffeId) -> bool {
        self.current().revoked.bars(id)
    }

    /// What is revoked.
    pub(crate) fn ledger(&self) -> Arc<Ledger> {
        self.current().ledger
    }

    /// Changes what is revoked: stored, pushed and recorded in one transaction, or not at all. The revision that
    /// brings it.
    pub(crate) async fn change_ledger(
        &self,
        next: Ledger,
        before: &Arc<Ledger>,
        along: Along,
    ) -> Result<(Revision, u64), ControlError> {
        let _one = self.shared.changing.lock().await;
        if !Arc::ptr_eq(&self.current().ledger, before) {
            return Err(ControlError::Store(StoreError::Conflict {
                key: LEDGER.to_owned(),
            }));
        }
        let list = next.list();
        let edition = list.edition;
        let key = format!("trust/{}/revoked", self.shared.config.trust_domain);
        let txn = along.txn.put(LEDGER, json(&next)).put(key, json(&list));
        let revision = self.shared.audit.commit(txn, along.events).await?;
        {
            let mut current = self.lock();
            current.ledger = Arc::new(next);
            current.revoked = Arc::new(list);
        }
        self.shared.trust.send_modify(|count| *count += 1);
        Ok((revision, edition))
    }

    /// Whom the mesh trusts.
    pub(crate) fn bundles(&self) -> BundleSet {
        let current = self.current();
        let bundle = current.followed;
        let mut bundles = BundleSet::from(bundle.unwrap_or_else(|| current.authority.bundle()));
        if current.revoked.edition > 0 {
            let domain = self.shared.config.trust_domain.clone();
            bundles.revoke(domain, current.revoked);
        }
        bundles
    }
}

impl From<ControlError> for Reject {
    fn from(error: ControlError) -> Self {
        match error {
            ControlError::Store(error) => error.into(),
            ControlError::Ca(error) => error.into(),
            other => Self::new(
                http::StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                other.to_string(),
            ),
        }
    }
}

impl From<StoreError> for ControlError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}
