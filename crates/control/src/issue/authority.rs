//! The authority with its journal in the store: what is signed now, and the steps of its rotation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use tokio::time::Instant;
use weft_ca::{Authority, CaConfig, Error as CaError, Issued, Journal, KeyStore, SlotState, Tier};
use weft_certs::{BundleSet, RootPin, SpiffeId, TrustBundle, X509Svid, serial_of};
use weft_env::{Env, Rng};

use super::limit::RateLimit;
use crate::admin::types::{AuthorityInfo, CaInfo};
use crate::error::ControlError;
use crate::problem::Reject;
use crate::settings::MeshSettings;
use crate::store::{Condition, Revision, Store, StoreError, Txn};
use crate::time::{seconds_left, unix_s};

/// Where the journal is kept.
const JOURNAL: &str = "ca/journal";

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
    /// One transition of the journal at a time.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Clone)]
struct Current {
    authority: Arc<Authority>,
    /// The revision that wrote its journal.
    journal: Revision,
}

/// A step of the journal.
pub(crate) type Step = Box<
    dyn FnOnce(&Authority, &dyn KeyStore, SystemTime, &mut Rng) -> Result<Journal, CaError> + Send,
>;

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
    ) -> Result<Self, ControlError> {
        let entry = store.get(JOURNAL).await?;
        let entry = entry.ok_or_else(|| ControlError::Damaged {
            what: "the authority's journal is missing from the store".to_owned(),
        })?;
        let journal: Journal =
            serde_json::from_slice(&entry.value).map_err(|error| ControlError::Damaged {
                what: format!("the authority's journal cannot be read: {error}"),
            })?;
        let config = settings.ca_config();
        let authority = load(env, config.clone(), journal, keys.clone()).await?;
        let service = Self {
            shared: Arc::new(Shared {
                env: env.clone(),
                store,
                keys,
                config,
                current: Mutex::new(Current {
                    authority: Arc::new(authority),
                    journal: entry.mod_revision,
                }),
                limit: Mutex::new(RateLimit::new(Instant::now())),
                rng: Mutex::new(env.rng("ca")),
                changing: tokio::sync::Mutex::new(()),
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

    /// Takes a step: the next journal is stored before anything follows from it.
    pub(crate) async fn step(&self, step: Step) -> Result<(), ControlError> {
        let _one = self.shared.changing.lock().await;
        let before = self.current();
        let (keys, now) = (self.shared.keys.clone(), self.shared.env.wall());
        let mut rng = self.shared.env.rng("ca-step");
        let authority = before.authority.clone();
        let journal = self
            .shared
            .env
            .disk(move |_| step(&authority, &*keys, now, &mut rng))
            .await?;
        let txn = Txn::new()
            .when(Condition::At(JOURNAL.to_owned(), before.journal))
            .put(JOURNAL, json(&journal));
        let revision = self.shared.store.commit(txn).await?;
        let loaded = load(
            &self.shared.env,
            self.shared.config.clone(),
            journal,
            self.shared.keys.clone(),
        )
        .await?;
        *self
            .shared
            .current
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Current {
            authority: Arc::new(loaded),
            journal: revision,
        };
        self.publish_trust().await
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

    /// Signs a leaf for an identity that the caller has attested.
    ///
    /// # Errors
    /// 429 over the rate limit; otherwise what the authority says.
    pub(crate) fn issue(&self, csr: &[u8], attested: &SpiffeId) -> Result<Issued, Reject> {
        let limited = self
            .shared
            .limit
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take(Instant::now());
        limited.map_err(Reject::rate_limited)?;
        let issued =
            self.sign(|authority, now, rng| authority.issue(csr, attested, None, now, rng))?;
        tracing::info!(
            id = %issued.id, serial = issued.serial, issuer = issued.issuer, "certificate issued"
        );
        Ok(issued)
    }

    /// A new SVID for the control node itself. The root goes along, for joiners to check their pin.
    pub(crate) fn own_svid(&self, id: &SpiffeId) -> Result<X509Svid, ControlError> {
        let request = weft_ca::make_csr(Some(id))?;
        let issued = self.sign(|authority, now, rng| {
            authority.issue_reserved(&request.csr, id, None, now, rng)
        })?;
        let mut chain = issued.chain;
        chain.push(issued.root);
        X509Svid::new(chain, request.key).map_err(|error| ControlError::Damaged {
            what: format!("the control node's own certificate is not usable: {error}"),
        })
    }

    fn sign(
        &self,
        sign: impl FnOnce(&Authority, SystemTime, &mut Rng) -> Result<Issued, CaError>,
    ) -> Result<Issued, CaError> {
        let authority = self.authority();
        let now = self.shared.env.wall();
        let mut rng = self
            .shared
            .rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sign(&authority, now, &mut rng)
    }

    /// Whom the mesh trusts.
    pub(crate) fn bundles(&self) -> BundleSet {
        BundleSet::from(self.authority().bundle())
    }

    /// Name and certificate serial of the issuing CA that signs now.
    pub(crate) fn active_issuer(&self) -> Result<(String, String), CaError> {
        let authority = self.authority();
        let slot = authority.journal().active(Tier::Issuing)?;
        Ok((slot.id.clone(), serial(&slot.certificate)))
    }

    /// Names of issuing CAs in this state.
    pub(crate) fn issuers_in(&self, state: SlotState) -> Vec<String> {
        let authority = self.authority();
        let slots = authority.journal().slots(Tier::Issuing).iter();
        slots
            .filter(|slot| slot.state == state)
            .map(|slot| slot.id.clone())
            .collect()
    }

    /// What `GET /v1/ca` shows.
    pub(crate) fn info(&self) -> Result<CaInfo, CaError> {
        let authority = self.authority();
        let (journal, now) = (authority.journal(), self.shared.env.wall());
        let slots = [Tier::Root, Tier::Issuing].map(|tier| {
            let slots = journal.slots(tier).iter();
            slots.map(move |slot| AuthorityInfo {
                role: tier.as_str().to_owned(),
                state: slot.state.to_string(),
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
        })
    }
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

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the value has string keys only")
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
