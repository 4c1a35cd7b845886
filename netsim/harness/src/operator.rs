//! The operator: tells the control node what to do, and remembers what it has promised.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::timeout;
use weft_control::{
    AdminClient, AdminError, ResourceFilter, RevokeRequest, RotateCa, RotateCerts, Status,
    TokenCreated, TokenRequest,
};
use weft_env::Env;

use crate::model::{Generation, SERVICES};
use crate::observer::Observer;

/// An operator gives up after this; whether the command was carried out is then not known.
const PATIENCE: Duration = Duration::from_secs(10);
/// What sidecars have to say that they enforce a revocation.
const PROOF: Duration = Duration::from_secs(5);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Operator {
    env: Env,
    control: PathBuf,
    observer: Observer,
    memory: Arc<Mutex<Memory>>,
    /// Config is pushed by one after the other: of two pushes whose outcome is not known, nobody could say which came
    /// first.
    turn: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Memory {
    /// Pushed, with the outcome not known.
    unsure: Option<Unsure>,
    /// The highest revision that the control node has told.
    highest: u64,
    /// The highest revision that each life of an instance has acknowledged: by instance and begin of its link.
    acked: BTreeMap<(String, u64), u64>,
}

struct Unsure {
    generation: Generation,
    /// The control node's process that may still carry it out, unless it has answered that it does not.
    by: Option<String>,
}

impl Operator {
    pub(crate) fn new(env: &Env, control: PathBuf, observer: &Observer) -> Self {
        Self {
            env: env.clone(),
            control,
            observer: observer.clone(),
            memory: Arc::default(),
            turn: Arc::default(),
        }
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn admin<T, F>(&self, ask: impl FnOnce(AdminClient) -> F) -> Result<T, String>
    where
        F: Future<Output = Result<T, AdminError>>,
    {
        let asked = self.asked(ask).await;
        asked.map_err(|error| error.to_string())
    }

    async fn asked<T, F>(&self, ask: impl FnOnce(AdminClient) -> F) -> Result<T, AdminError>
    where
        F: Future<Output = Result<T, AdminError>>,
    {
        let asked = async {
            let client = AdminClient::connect(&self.env, &self.control).await?;
            ask(client).await
        };
        let answer = timeout(PATIENCE, asked).await;
        answer.unwrap_or(Err(AdminError::Timeout(PATIENCE)))
    }

    /// A one-time token for a service.
    pub(crate) async fn token(&self, service: &str) -> Result<TokenCreated, String> {
        let request = TokenRequest {
            namespace: "default".to_owned(),
            service: service.to_owned(),
            ttl_s: 600,
        };
        self.admin(async |admin| admin.create_token(&request).await)
            .await
    }

    /// Pushes a generation of config.
    pub(crate) async fn push(&self, generation: Generation) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.find_out().await?;
        if let Some(unsure) = &self.memory().unsure {
            return Err(format!(
                "generation {} may still come into force",
                unsure.generation.number
            ));
        }
        let resources = weft_resources::parse_yaml(&generation.yaml(), "generation")
            .map_err(|error| format!("the generation is not valid: {error:?}"))?;
        let asked = self
            .asked(async |admin| admin.apply(&resources).await)
            .await;
        match asked {
            Ok(applied) => {
                self.commit(applied.revision, generation);
                Ok(())
            }
            Err(error) => {
                let refused = matches!(error, AdminError::Refused(_));
                let by = (!refused).then(|| self.observer.lock().control.clone());
                self.memory().unsure = Some(Unsure { generation, by });
                Err(error.to_string())
            }
        }
    }

    fn commit(&self, revision: u64, generation: Generation) {
        self.observer.note(format!(
            "generation {} holds from revision {revision}",
            generation.number
        ));
        // `highest` is not raised: what sidecars see follows what is stored by a moment, and that is what status tells.
        self.memory().unsure = None;
        self.observer.lock().committed.enter(revision, generation);
    }

    /// Finds out what became of a push whose outcome is not known.
    pub(crate) async fn remember(&self) -> Result<(), String> {
        let _turn = self.turn.lock().await;
        self.find_out().await
    }

    async fn find_out(&self) -> Result<(), String> {
        let Some(number) = self.memory().unsure.as_ref().map(|u| u.generation.number) else {
            return Ok(());
        };
        // Before asking: a successor knows what this one has done, and does nothing for it.
        let control = self.observer.lock().control.clone();
        let filter = ResourceFilter {
            kind: Some("HTTPRoute".to_owned()),
            ..ResourceFilter::default()
        };
        let list = self
            .admin(async |admin| admin.resources(&filter).await)
            .await?;
        let mark = format!("\"{number}\"");
        let entry = list.resources.iter().find(|entry| {
            let text = entry.resource.to_string();
            text.contains("x-generation") && text.contains(&mark)
        });
        let Some(unsure) = self.memory().unsure.take() else {
            return Ok(());
        };
        match entry {
            Some(entry) => self.commit(entry.revision, unsure.generation),
            None if unsure.by.as_ref() == Some(&control) => self.memory().unsure = Some(unsure),
            None => {}
        }
        Ok(())
    }

    /// Pushes what must be refused.
    pub(crate) async fn push_invalid(&self) {
        let route = Generation::draw(0, 0).yaml();
        let broken = route.replace("name: orders, port: 80", "name: nowhere.else.x, port: 80");
        let Ok(resources) = weft_resources::parse_yaml(&broken, "broken") else {
            // Refused before it has left the operator's machine: as it should be.
            return;
        };
        if self
            .admin(async |admin| admin.apply(&resources).await)
            .await
            .is_ok()
        {
            self.observer
                .violate("a config that cannot be used was taken".to_owned());
        }
    }

    /// Asks every sidecar to take a new certificate.
    pub(crate) async fn rotate_certs(&self) -> Result<(), String> {
        let request = RotateCerts {
            within_ms: Some(2_000),
            ..RotateCerts::default()
        };
        self.admin(async |admin| admin.rotate_certs(&request).await.map(drop))
            .await
    }

    /// Replaces the issuing CA, or the root and it.
    pub(crate) async fn rotate_ca(&self, root: bool) -> Result<(), String> {
        let request = RotateCa {
            within_ms: Some(2_000),
            root,
            ..RotateCa::default()
        };
        self.admin(async |admin| admin.rotate_ca(&request).await.map(drop))
            .await
    }

    /// Revokes a certificate, and says which sidecars (`service/instance`) have said that they refuse it now.
    pub(crate) async fn revoke(&self, serial: &str) -> Result<Vec<String>, String> {
        let request = RevokeRequest {
            serial: Some(serial.to_owned()),
            ..RevokeRequest::default()
        };
        let revoked = self
            .admin(async |admin| admin.revoke(&request).await)
            .await?;
        let (edition, since) = (revoked.edition, revoked.at_unix_ms);
        let proof = self
            .admin(async |admin| admin.prove(edition, since, PROOF).await)
            .await?;
        Ok(proof.receipts.into_iter().map(|r| r.sidecar).collect())
    }

    /// Looks at the control node, and holds it to what it has said before.
    pub(crate) async fn look(&self) -> Result<Status, String> {
        let status = self.admin(async |admin| admin.status().await).await?;
        let revision = status.control.revision;
        let mut memory = self.memory();
        if revision < memory.highest {
            self.observer.violate(format!(
                "the control node is at revision {revision}, but has been at {}",
                memory.highest
            ));
        }
        memory.highest = revision;
        for sidecar in &status.sidecars {
            let Some(acked) = sidecar.acked_revision else {
                continue;
            };
            if acked > revision {
                self.observer.violate(format!(
                    "{} has acknowledged revision {acked}, which does not exist (the last is {revision})",
                    sidecar.instance
                ));
            }
            let link = (sidecar.instance.clone(), sidecar.since_unix_ms);
            let before = memory.acked.entry(link).or_default();
            if acked < *before {
                self.observer.violate(format!(
                    "{} acknowledges revision {acked} after {before}",
                    sidecar.instance
                ));
            }
            *before = acked;
        }
        Ok(status)
    }

    /// Whether every live sidecar has the newest revision in force, or who has not.
    pub(crate) async fn everyone_is_up_to_date(&self, expected: usize) -> Result<(), String> {
        let status = self.look().await?;
        let revision = status.control.revision;
        let wait = Duration::from_secs(1);
        let reply = self
            .admin(async |admin| admin.wait(revision, wait).await)
            .await?;
        if !reply.is_complete() || reply.receipts.len() != expected {
            return Err(format!(
                "revision {revision}: {} of {expected} have it, {} refuse it, {} have not answered",
                reply.receipts.len(),
                reply.nacks.len(),
                reply.stragglers.len()
            ));
        }
        Ok(())
    }
}

/// Instances of all services.
pub(crate) const EXPECTED: usize = SERVICES.len() * crate::model::INSTANCES;
