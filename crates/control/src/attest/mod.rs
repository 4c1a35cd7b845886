//! Joining without a token: who somebody is follows from a proof that others have given it, by the operator's rules.
//!
//! One seam for all kinds: an [`Attestation`] goes in, an identity with the facts that it rests on comes out, or a
//! refusal with the facts so far. Without `--attest` nobody gets in this way.

mod account;
mod file;
mod machine;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use http::StatusCode;
use tokio::time::Instant;
use weft_ca::{CHALLENGE_LIFE, ChallengeError, Challenges};
use weft_certs::{RootPin, SpiffeId, TrustBundle};
use weft_env::Env;
use weft_resources::{ServiceName, Unmapped};
use weft_wire::{Attestation, ChallengeResponse};

use crate::error::ControlError;
use crate::problem::Reject;
use file::{Cached, Loaded};

/// Foreign text in the audit log and in answers is cut here.
const SHOWN: usize = 160;

/// What an identity, or a refusal, rests on: names and values for the audit log. Never a secret.
pub(crate) type Facts = Vec<(&'static str, String)>;

/// Somebody who has proven to be somebody.
#[derive(Debug)]
pub(crate) struct Attested {
    /// The service that it may be by the rules.
    pub(crate) service: ServiceName,
    /// How it was proven, and what.
    pub(crate) facts: Facts,
    /// A key that must not be revoked.
    pub(crate) key: Option<RootPin>,
    /// When the proof was made, where it is good more than once: an identity that was readmitted needs a newer one.
    pub(crate) issued: Option<SystemTime>,
}

/// Somebody who has not.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) reject: Reject,
    pub(crate) facts: Facts,
}

impl From<Reject> for Refused {
    fn from(reject: Reject) -> Self {
        Self {
            reject,
            facts: Facts::new(),
        }
    }
}

impl From<ChallengeError> for Reject {
    fn from(error: ChallengeError) -> Self {
        let status = match error {
            ChallengeError::Unknown | ChallengeError::Expired => StatusCode::UNAUTHORIZED,
            ChallengeError::Used => StatusCode::CONFLICT,
            ChallengeError::Full => StatusCode::TOO_MANY_REQUESTS,
        };
        Self::new(status, error.reason(), error.to_string())
    }
}

/// What a proof is held against, apart from the rules.
pub(crate) struct Occasion<'a> {
    /// The own trust domain with its roots.
    pub(crate) bundle: &'a TrustBundle,
    /// The certificate request, DER.
    pub(crate) csr: &'a [u8],
    pub(crate) now: SystemTime,
}

/// Judges attestations. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Attestors(Option<Arc<Shared>>);

struct Shared {
    env: Env,
    path: PathBuf,
    began: Instant,
    challenges: Mutex<Challenges>,
    /// Held while the files are read, so that a crowd of joiners reads them once.
    loaded: tokio::sync::Mutex<Cached>,
}

impl Attestors {
    /// Those of this file, or nobody.
    ///
    /// # Errors
    /// [`ControlError::Attestors`] if the file, or one that it names, cannot be used.
    pub(crate) async fn load(env: &Env, path: Option<&Path>) -> Result<Self, ControlError> {
        let Some(path) = path else {
            return Ok(Self(None));
        };
        let loaded = file::load(env, path).await;
        let loaded = loaded.map_err(|reason| ControlError::Attestors { reason })?;
        let began = Instant::now();
        Ok(Self(Some(Arc::new(Shared {
            env: env.clone(),
            path: path.to_owned(),
            began,
            challenges: Mutex::new(Challenges::new(&mut env.rng("join-challenges"))),
            loaded: tokio::sync::Mutex::new(Cached::new(Arc::new(loaded), began)),
        }))))
    }

    /// Something to sign.
    ///
    /// # Errors
    /// 403 where nobody can join with a certificate.
    pub(crate) async fn challenge(&self) -> Result<ChallengeResponse, Reject> {
        let shared = self.shared("a machine's certificate")?;
        if shared.loaded().await?.machines.is_empty() {
            return Err(off("a machine's certificate"));
        }
        let mut rng = shared.env.rng("join-challenge");
        let challenge = shared.challenges().make(&mut rng, shared.began.elapsed());
        Ok(ChallengeResponse {
            challenge,
            good_for_ms: u64::try_from(CHALLENGE_LIFE.as_millis()).unwrap_or(u64::MAX),
        })
    }

    /// Who somebody is, by its proof and the rules as they are now.
    ///
    /// # Errors
    /// Why nobody.
    pub(crate) async fn attest(
        &self,
        attestation: &Attestation,
        occasion: &Occasion<'_>,
    ) -> Result<Attested, Refused> {
        match attestation {
            Attestation::X509Pop(proof) => {
                let shared = self.shared("a machine's certificate")?;
                let loaded = shared.loaded().await?;
                if loaded.machines.is_empty() {
                    return Err(off("a machine's certificate").into());
                }
                let seat = machine::Seat {
                    attestors: &loaded.machines,
                    challenges: &shared.challenges,
                    since: shared.began.elapsed(),
                };
                seat.judge(proof, occasion)
            }
            Attestation::K8s { token } => {
                let shared = self.shared("a service account token")?;
                let loaded = shared.loaded().await?;
                if loaded.clusters.is_empty() {
                    return Err(off("a service account token").into());
                }
                account::judge(&loaded.clusters, token, occasion.now)
            }
            Attestation::Unknown => Err(Reject::bad_request(
                "attestation_kind",
                "this control node knows x509pop and k8s: join with one of them or with a token",
            )
            .into()),
        }
    }

    fn shared(&self, what: &str) -> Result<&Shared, Reject> {
        self.0.as_deref().ok_or_else(|| off(what))
    }
}

impl Shared {
    fn challenges(&self) -> std::sync::MutexGuard<'_, Challenges> {
        lock(&self.challenges)
    }

    /// The rules as the files say now. A file that cannot be used any more lets nobody in: what it should say is
    /// unknown.
    async fn loaded(&self) -> Result<Arc<Loaded>, Reject> {
        let mut cached = self.loaded.lock().await;
        let now = Instant::now();
        if let Some(loaded) = cached.fresh(now) {
            return loaded;
        }
        let read = file::load(&self.env, &self.path).await;
        let loaded = read.map(Arc::new).map_err(|reason| {
            tracing::error!(reason, "nobody can join without a token");
            Reject::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "attestors_unusable",
                "the control node cannot read who may join this way: see its log, mend the file of --attest, and try again",
            )
        });
        cached.put(loaded.clone(), now);
        loaded
    }
}

/// Each change of it is one call.
fn lock(challenges: &Mutex<Challenges>) -> std::sync::MutexGuard<'_, Challenges> {
    challenges.lock().unwrap_or_else(PoisonError::into_inner)
}

fn off(what: &str) -> Reject {
    Reject::new(
        StatusCode::FORBIDDEN,
        "attestation_off",
        format!(
            "nobody joins this mesh with {what}: say who may in the file of `weft control --attest`, or join with a token (`weft token create`)"
        ),
    )
}

/// The refusal where a proof is good and nobody's.
fn unmapped(error: &Unmapped, who: &str) -> Reject {
    let code = match error {
        Unmapped::NoRule { .. } => "no_rule",
        _ => "rule_unusable",
    };
    Reject::new(
        StatusCode::FORBIDDEN,
        code,
        format!(
            "{who} is known, but {error}: mend the rules in the file of `weft control --attest`"
        ),
    )
}

/// The identity of a service of this mesh.
pub(crate) fn identity(bundle: &TrustBundle, service: &ServiceName) -> Result<SpiffeId, Reject> {
    SpiffeId::for_service(&bundle.trust_domain, service.namespace(), service.name())
        .map_err(|error| Reject::bad_request("bad_name", error.to_string()))
}

/// Foreign text as it may be shown: cut, and on one line.
fn shown(text: &str) -> String {
    let mut out: String = text
        .chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .take(SHOWN)
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests;
