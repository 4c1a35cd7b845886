//! Other meshes whose identities this one accepts (SPIFFE Federation).
//!
//! ```text
//!  weft federation add ──► relation (store) ──► follow: fetch by the hint ──► trust/<trust domain> ──► every sidecar
//!                                                     endpoint: the own bundle, for others to fetch
//! ```
//!
//! A relation is one way: it says whom this mesh accepts. Its bundle is a key like the mesh's own, so that sidecars get
//! it with the next push and cut what it no longer vouches for. The bundles of two trust domains are never merged.

mod endpoint;
mod fetch;
mod follow;
mod rules;
pub(crate) mod types;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::watch;
use weft_ca::audit::Event;
use weft_certs::{BundleSet, TrustBundle, TrustDomain};
use weft_env::Env;
use weft_wire::ResourcePath;

use self::rules::Judged;
use self::types::{FederateRequest, FederationInfo, FetchFailure, Profile, Relation};
use crate::error::ControlError;
use crate::issue::CaService;
use crate::problem::Reject;
use crate::store::{Condition, Store, Txn, json};
use crate::time::unix_s;

pub use endpoint::{BundleEndpoint, WebCertificate};
pub(crate) use endpoint::{listen, serve};
pub(crate) use follow::keep;

const PREFIX: &str = "federation/";
/// Most other meshes.
const MAX_RELATIONS: usize = 64;

/// The relations with how they stand. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Federations {
    shared: Arc<Shared>,
}

struct Shared {
    env: Env,
    ca: CaService,
    home: TrustDomain,
    /// What is stored, with what happened since the start.
    known: Mutex<BTreeMap<TrustDomain, Known>>,
    changes: watch::Sender<u64>,
    /// Held while relations are changed.
    changing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
struct Known {
    relation: Relation,
    bundle: Option<TrustBundle>,
    refresh: std::time::Duration,
    fetched_unix: Option<u64>,
    failed: Option<FetchFailure>,
}

impl Federations {
    /// Reads what is stored.
    pub(crate) async fn load(
        env: &Env,
        store: &dyn Store,
        ca: CaService,
        home: TrustDomain,
    ) -> Result<Self, ControlError> {
        let damaged = |key: &str, error: &dyn std::fmt::Display| ControlError::Damaged {
            what: format!("{key} cannot be read: {error}"),
        };
        let mut known = BTreeMap::new();
        for entry in store.range(PREFIX).await?.entries {
            let relation: Relation = serde_json::from_slice(&entry.value)
                .map_err(|error| damaged(&entry.key, &error))?;
            let key = trust_key(&relation.trust_domain);
            let stored = store.get(&key).await?;
            let jwks = stored.and_then(|entry| serde_json::from_slice::<Value>(&entry.value).ok());
            let domain = relation.trust_domain.clone();
            let bundle = jwks
                .map(|jwks| TrustBundle::from_jwks(domain.clone(), &jwks))
                .transpose()
                .map_err(|error| damaged(&key, &error))?;
            known.insert(domain, Known::new(relation, bundle));
        }
        Ok(Self {
            shared: Arc::new(Shared {
                env: env.clone(),
                ca,
                home,
                known: Mutex::new(known),
                changes: watch::Sender::new(0),
                changing: tokio::sync::Mutex::new(()),
            }),
        })
    }

    fn known<T>(&self, with: impl FnOnce(&mut BTreeMap<TrustDomain, Known>) -> T) -> T {
        let known = self.shared.known.lock();
        with(&mut known.unwrap_or_else(PoisonError::into_inner))
    }

    fn changed(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
    }

    /// What there is, by trust domain.
    pub(crate) fn list(&self) -> Vec<FederationInfo> {
        self.known(|known| known.values().map(Known::info).collect())
    }

    fn relations(&self) -> BTreeMap<TrustDomain, Relation> {
        self.known(|known| {
            let relations = known.values().map(|known| known.relation.clone());
            relations
                .map(|relation| (relation.trust_domain.clone(), relation))
                .collect()
        })
    }

    fn refresh_of(&self, domain: &TrustDomain) -> std::time::Duration {
        self.known(|known| {
            let known = known.get(domain);
            known.map_or(rules::DEFAULT_REFRESH, |known| known.refresh)
        })
    }

    /// Accepts another mesh, or changes how its bundle is fetched.
    ///
    /// # Errors
    /// [`Reject`]; nothing was changed.
    pub(crate) async fn add(&self, request: FederateRequest, by: &str) -> Result<(), Reject> {
        let refuse = |reason: String| Reject::bad_request("bad_federation", reason);
        let FederateRequest { relation, bundle } = request;
        let domain = relation.trust_domain.clone();
        let brought = bundle.map(|jwks| TrustBundle::from_jwks(domain.clone(), &jwks));
        let brought = brought
            .transpose()
            .map_err(|error| refuse(error.to_string()))?;
        let _one = self.shared.changing.lock().await;
        let (current, count) = self.known(|known| (known.get(&domain).cloned(), known.len()));
        rules::check(&relation, &self.shared.home, |other| {
            (*other == domain && brought.is_some())
                || self.known(|known| known.get(other).is_some_and(|known| known.bundle.is_some()))
        })
        .map_err(refuse)?;
        if current.is_none() && count >= MAX_RELATIONS {
            return Err(refuse(format!(
                "this mesh accepts {MAX_RELATIONS} others already, which is the limit"
            )));
        }
        let before = current.and_then(|known| known.bundle);
        // What an operator brings is an act of its own: also an earlier edition, if that is what is wanted.
        let next = brought.or(before);
        let mut txn = Txn::new().put(key(&domain), json(&relation));
        if let Some(bundle) = &next {
            txn = txn.put(trust_key(&domain), json(&bundle.to_jwks()));
        }
        let event = Event::new("federation.added", &domain, by)
            .with("url", &relation.url)
            .with("profile", relation.profile.as_str());
        self.shared.ca.audit().commit(txn, vec![event]).await?;
        self.known(|known| known.insert(domain, Known::new(relation, next)));
        self.changed();
        Ok(())
    }

    /// Accepts another mesh no more: its bundle goes from every sidecar, and with it the connections that it
    /// vouched for.
    ///
    /// # Errors
    /// [`Reject`] if there is no such relation; nothing was changed.
    pub(crate) async fn remove(&self, domain: &TrustDomain, by: &str) -> Result<(), Reject> {
        let _one = self.shared.changing.lock().await;
        self.must_have(domain)?;
        let txn = Txn::new().delete(key(domain)).delete(trust_key(domain));
        let event = Event::new("federation.removed", domain, by);
        self.shared.ca.audit().commit(txn, vec![event]).await?;
        self.known(|known| known.remove(domain));
        self.changed();
        Ok(())
    }

    fn must_have(&self, domain: &TrustDomain) -> Result<Relation, Reject> {
        let relation = self.known(|known| known.get(domain).map(|known| known.relation.clone()));
        relation.ok_or_else(|| no_such(domain))
    }

    /// Fetches the bundle now. How the relation stands then, also if the fetch failed.
    ///
    /// # Errors
    /// [`Reject`] if there is no such relation.
    pub(crate) async fn refresh(&self, domain: &TrustDomain) -> Result<FederationInfo, Reject> {
        let relation = self.must_have(domain)?;
        self.fetch(&relation).await;
        let info = self.known(|known| known.get(domain).map(Known::info));
        // Removed while it was fetched.
        info.ok_or_else(|| no_such(domain))
    }

    /// One fetch with its outcome noted.
    async fn fetch(&self, relation: &Relation) {
        let domain = &relation.trust_domain;
        let fetched = fetch::fetch(&self.shared.env, relation, &self.recognized()).await;
        let now = unix_s(self.shared.env.wall());
        let taken = match fetched {
            Ok(jwks) => self.take(relation, &jwks).await,
            Err(reason) => Err(reason),
        };
        let told_before = self.known(|known| {
            let known = known
                .get_mut(domain)
                .filter(|known| known.relation == *relation)?;
            let before = known.failed.take().map(|failed| failed.reason);
            match &taken {
                Ok(()) => known.fetched_unix = Some(now),
                Err(reason) => {
                    known.failed = Some(FetchFailure {
                        at_unix: now,
                        reason: reason.clone(),
                    });
                }
            }
            before
        });
        match taken {
            Err(reason) if told_before.as_ref() != Some(&reason) => tracing::warn!(
                %domain, reason, "the bundle of another mesh cannot be fetched: the last one stays in force"
            ),
            Ok(()) if told_before.is_some() => {
                tracing::info!(%domain, "the bundle of another mesh is fetched again");
            }
            _ => {}
        }
    }

    /// Puts a fetched bundle into force, if it is newer.
    async fn take(&self, relation: &Relation, jwks: &Value) -> Result<(), String> {
        let domain = &relation.trust_domain;
        let fetched = TrustBundle::from_jwks(domain.clone(), jwks).map_err(|e| e.to_string())?;
        let refresh = rules::refresh(jwks);
        let _one = self.shared.changing.lock().await;
        let current = self.known(|known| {
            let known = known
                .get_mut(domain)
                .filter(|known| known.relation == *relation)?;
            known.refresh = refresh;
            Some(known.bundle.clone())
        });
        // Removed or changed while it was fetched.
        let Some(current) = current else {
            return Ok(());
        };
        match rules::judge(current.as_ref(), &fetched) {
            Judged::Same => return Ok(()),
            Judged::Older => {
                return Err(format!(
                    "{} has edition {} of the bundle, which is older than the one in force: it is not used",
                    relation.url, fetched.sequence
                ));
            }
            Judged::Newer => {}
        }
        let txn = Txn::new()
            .when(Condition::Exists(key(domain)))
            .put(trust_key(domain), json(&fetched.to_jwks()));
        let event = Event::new("federation.bundle", domain, "control")
            .with("sequence", fetched.sequence)
            .with("roots", fetched.roots.len());
        let stored = self.shared.ca.audit().commit(txn, vec![event]).await;
        stored.map_err(|error| error.to_string())?;
        tracing::info!(%domain, sequence = fetched.sequence, roots = fetched.roots.len(), "bundle of another mesh in force");
        self.known(|known| {
            if let Some(known) = known.get_mut(domain) {
                known.bundle = Some(fetched);
            }
        });
        Ok(())
    }

    /// By whom the endpoints of other meshes are recognized: the own bundle and theirs, as they are now.
    fn recognized(&self) -> BundleSet {
        let mut bundles = self.shared.ca.bundles();
        let others: Vec<_> =
            self.known(|known| known.values().filter_map(|k| k.bundle.clone()).collect());
        others.into_iter().for_each(|bundle| bundles.insert(bundle));
        bundles
    }
}

impl Known {
    fn new(relation: Relation, bundle: Option<TrustBundle>) -> Self {
        Self {
            relation,
            bundle,
            refresh: rules::DEFAULT_REFRESH,
            fetched_unix: None,
            failed: None,
        }
    }

    fn info(&self) -> FederationInfo {
        let mut relation = self.relation.clone();
        // Long, and nobody reads it in a list.
        if let Profile::HttpsWeb { ca: Some(ca) } = &mut relation.profile {
            *ca = "given".to_owned();
        }
        FederationInfo {
            relation,
            sequence: self.bundle.as_ref().map(|bundle| bundle.sequence),
            roots: self.bundle.as_ref().map_or(0, |bundle| bundle.roots.len()),
            refresh_s: self.refresh.as_secs(),
            fetched_unix: self.fetched_unix,
            failed: self.failed.clone(),
        }
    }
}

fn no_such(domain: &TrustDomain) -> Reject {
    Reject::new(
        http::StatusCode::NOT_FOUND,
        "no_such_federation",
        format!("this mesh has no federation with {domain}; see: weft federation list"),
    )
}

fn key(domain: &TrustDomain) -> String {
    format!("{PREFIX}{domain}")
}

fn trust_key(domain: &TrustDomain) -> String {
    let trust_domain = domain.to_string();
    ResourcePath::Trust { trust_domain }.to_string()
}
