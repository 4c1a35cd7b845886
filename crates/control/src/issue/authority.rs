//! The authority with its journal in the store: what is signed now, and the steps of its rotation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout};
use weft_ca::audit::Event;
use weft_ca::{
    Authority, CaConfig, Error as CaError, Issued, Journal, KeyStore, Slot, SlotState, Tier,
};
use weft_certs::{BundleSet, RevocationList, RootPin, SpiffeId, TrustBundle, X509Svid, serial_of};
use weft_env::{Env, Rng};

use super::issued;
use super::ledger::Ledger;
use super::limit::RateLimit;
use crate::admin::types::{AuthorityInfo, CaInfo, TokenKeyInfo};
use crate::audit::Audit;
use crate::error::ControlError;
use crate::problem::Reject;
use crate::settings::MeshSettings;
use crate::store::{Condition, Revision, Store, StoreError, Txn, json};
use crate::time::{seconds_left, unix_s};

/// Where the journal is kept.
pub(crate) const JOURNAL: &str = "ca/journal";
/// Where it is kept what is revoked.
const LEDGER: &str = "ca/revoked";

/// Signatures at a time by keys that are outside of this process.
const SIGNING: usize = 4;
/// How long anybody waits for a turn with them.
const TURN: Duration = Duration::from_secs(10);

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
        let ledger = read_ledger(&*store).await?;
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
        if journal.bundle() != before.authority.bundle() {
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

    /// Brings the stored bundle, which is pushed, to what the authority says.
    async fn publish_trust(&self) -> Result<(), ControlError> {
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

    /// Signs a leaf for an identity that the caller has attested, and remembers it together with `along`, before it is
    /// handed out.
    ///
    /// # Errors
    /// 429 over the rate limit; 403 for what is revoked; otherwise what the authority or the store says.
    pub(crate) async fn issue(
        &self,
        csr: &[u8],
        attested: &SpiffeId,
        by: &str,
        along: Along,
    ) -> Result<Issued, Reject> {
        let issued = match self.try_issue(csr, attested).await {
            Ok(issued) => issued,
            Err(reject) => {
                let event = Event::new("certificate.refused", attested, by)
                    .with("code", &reject.problem.code)
                    .with("reason", &reject.problem.message);
                self.shared.audit.refused(event).await;
                return Err(reject);
            }
        };
        self.remember(&issued, by, along).await?;
        tracing::info!(
            id = %issued.id, serial = issued.serial, issuer = issued.issuer, "certificate issued"
        );
        Ok(issued)
    }

    async fn try_issue(&self, csr: &[u8], attested: &SpiffeId) -> Result<Issued, Reject> {
        let revoked = self.current().revoked;
        if revoked.bars(attested) {
            return Err(Reject::revoked(attested));
        }
        let (limited, rate) = {
            let mut limit = self
                .shared
                .limit
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            (limit.take(Instant::now()), limit.rate())
        };
        limited.map_err(|after| Reject::rate_limited(rate, after))?;
        let (csr, id) = (csr.to_vec(), attested.clone());
        let issued = self
            .sign(move |authority, now, rng| authority.issue(&csr, &id, None, now, rng))
            .await?;
        match revoked.has_key(&issued.key) {
            true => Err(Reject::revoked_key(&issued.key)),
            false => Ok(issued),
        }
    }

    async fn remember(&self, issued: &Issued, by: &str, along: Along) -> Result<(), StoreError> {
        let Along { txn, mut events } = along;
        let event = Event::new("certificate.issued", &issued.id, by)
            .with("serial", &issued.serial)
            .with("key", issued.key)
            .with("issuer", &issued.issuer)
            .with("not_after_unix", unix_s(issued.not_after));
        events.push(event);
        let txn = issued::remember(txn, issued);
        self.shared.audit.commit(txn, events).await.map(drop)
    }

    /// A new SVID for the control node itself. The root goes along, for joiners to check their pin.
    pub(crate) async fn own_svid(&self, id: &SpiffeId) -> Result<X509Svid, ControlError> {
        let request = weft_ca::make_csr(Some(id))?;
        let (csr, own) = (request.csr.clone(), id.clone());
        let signed = self
            .sign(move |authority, now, rng| authority.issue_reserved(&csr, &own, None, now, rng));
        let issued = signed.await?;
        self.remember(&issued, "control", Along::default()).await?;
        let mut chain = issued.chain;
        chain.push(issued.root);
        chain.extend(self.old_roots());
        X509Svid::new(chain, request.key).map_err(|error| ControlError::Damaged {
            what: format!("the control node's own certificate is not usable: {error}"),
        })
    }

    /// Roots on their way out that are still good: a joiner may hold the pin of one.
    fn old_roots(&self) -> Vec<weft_certs::CertificateDer<'static>> {
        let authority = self.authority();
        let roots = authority.journal().slots(Tier::Root).iter();
        roots
            .filter(|slot| slot.state == SlotState::Old && !slot.tainted)
            .map(|slot| slot.certificate.clone())
            .collect()
    }

    /// Has the authority sign something: here and now, or where waiting is allowed if its key is outside of this process.
    pub(crate) async fn sign<T: Send + 'static>(
        &self,
        sign: impl FnOnce(&Authority, SystemTime, &mut Rng) -> Result<T, CaError> + Send + 'static,
    ) -> Result<T, CaError> {
        let shared = &self.shared;
        let (authority, now) = (self.authority(), shared.env.wall());
        if !authority.waits() {
            let mut rng = shared.rng.lock().unwrap_or_else(PoisonError::into_inner);
            return sign(&authority, now, &mut rng);
        }
        // A place that does not answer holds up a few threads, not all of those that the store needs too.
        let turn = timeout(TURN, shared.waiting.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(CaError::KeysBusy);
        };
        let mut rng = shared.env.rng("ca-sign");
        let sign = move || sign(&authority, now, &mut rng);
        shared.env.disk(move |_| sign()).await
    }

    /// Whom the mesh trusts.
    pub(crate) fn bundles(&self) -> BundleSet {
        let current = self.current();
        let mut bundles = BundleSet::from(current.authority.bundle());
        if current.revoked.edition > 0 {
            let domain = self.shared.config.trust_domain.clone();
            bundles.revoke(domain, current.revoked);
        }
        bundles
    }

    /// What `GET /v1/ca` shows.
    pub(crate) fn info(&self) -> Result<CaInfo, CaError> {
        let authority = self.authority();
        let (journal, now) = (authority.journal(), self.shared.env.wall());
        let slots = [Tier::Root, Tier::Issuing].map(|tier| {
            let slots = journal.slots(tier).iter();
            slots.map(move |slot| AuthorityInfo {
                name: slot.id.clone(),
                role: tier.as_str().to_owned(),
                state: slot.state.to_string(),
                issuer: slot.issuer.clone(),
                tainted: slot.tainted,
                key_here: slot.key.is_some(),
                pin: slot.pin().map(|pin| pin.to_string()).unwrap_or_default(),
                serial: serial(&slot.certificate),
                not_before_unix: unix_s(slot.not_before),
                not_after_unix: unix_s(slot.not_after),
                seconds_left: seconds_left(slot.not_after, now),
            })
        });
        Ok(CaInfo {
            trust_domain: journal.trust_domain().to_string(),
            pin: authority.pin()?.to_string(),
            sequence: journal.sequence(),
            leaf_ttl_s: self.shared.config.leaf_ttl.as_secs(),
            authorities: slots.into_iter().flatten().collect(),
            token_keys: token_keys(journal),
        })
    }
}

fn token_keys(journal: &Journal) -> Vec<TokenKeyInfo> {
    let slots = journal.jwt_slots().iter();
    slots
        .map(|slot| TokenKeyInfo {
            name: slot.id.clone(),
            state: slot.state.to_string(),
            kid: slot
                .public_key()
                .map(|key| key.kid().to_owned())
                .unwrap_or_default(),
            since_unix: unix_s(slot.since),
        })
        .collect()
}

/// The record of each slot that came to another state.
fn transitions(before: &Journal, after: &Journal) -> Vec<Event> {
    let state = |journal: &Journal, slot: &Slot| {
        let (_, found) = journal.find(&slot.id).ok()?;
        Some((found.state, found.tainted))
    };
    let mut events = Vec::new();
    for tier in [Tier::Root, Tier::Issuing] {
        for slot in after.slots(tier) {
            if state(before, slot) == Some((slot.state, slot.tainted)) {
                continue;
            }
            let what = match slot.tainted {
                true if slot.is_live() => "authority.tainted".to_owned(),
                _ => format!("authority.{}", slot.state),
            };
            let event = Event::new(&what, &slot.id, "control")
                .with("serial", serial(&slot.certificate))
                .with("sequence", after.sequence());
            events.push(event);
        }
    }
    for slot in after.jwt_slots() {
        let known = before.jwt_slot(&slot.id).ok().map(|slot| slot.state);
        if known != Some(slot.state) {
            let kid = slot.public_key().map(|key| key.kid().to_owned());
            let what = format!("authority.{}", slot.state);
            let event = Event::new(&what, &slot.id, "control")
                .with("kid", kid.unwrap_or_default())
                .with("sequence", after.sequence());
            events.push(event);
        }
    }
    events
}

/// The stored journal, and the revision that wrote it.
pub(crate) async fn read_journal(store: &dyn Store) -> Result<(Journal, Revision), ControlError> {
    let entry = store.get(JOURNAL).await?;
    let entry = entry.ok_or_else(|| ControlError::Damaged {
        what: "the authority's journal is missing from the store".to_owned(),
    })?;
    let journal = serde_json::from_slice(&entry.value).map_err(|error| ControlError::Damaged {
        what: format!("the authority's journal cannot be read: {error}"),
    })?;
    Ok((journal, entry.mod_revision))
}

async fn read_ledger(store: &dyn Store) -> Result<Ledger, ControlError> {
    let Some(entry) = store.get(LEDGER).await? else {
        return Ok(Ledger::default());
    };
    serde_json::from_slice(&entry.value).map_err(|error| ControlError::Damaged {
        what: format!("the record of what is revoked cannot be read: {error}"),
    })
}

async fn load(
    env: &Env,
    config: CaConfig,
    journal: Journal,
    keys: Keys,
) -> Result<Authority, CaError> {
    env.disk(move |_| Authority::load(config, journal, &*keys))
        .await
}

fn trust_entry(bundle: &TrustBundle) -> (String, Vec<u8>) {
    let key = format!("trust/{}", bundle.trust_domain);
    (key, json(&bundle.to_jwks()))
}

/// A loaded journal's certificates are readable: `Authority::load` has read them.
fn serial(certificate: &weft_certs::CertificateDer<'_>) -> String {
    serial_of(certificate).unwrap_or_default()
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
