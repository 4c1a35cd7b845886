//! Tokens (JWT-SVIDs) for the identity of a connection, and the life of the keys that sign them.
//!
//! The first key is made when the first token is wanted. A key signs once the connected sidecars trust it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep_until};
use weft_ca::audit::Event;
use weft_ca::{IssuedJwt, JwtDue, SlotState};
use weft_certs::SpiffeId;
use weft_wire::{JwtRequest, JwtResponse};

use super::CaService;
use super::authority::Along;
use super::limit::RateLimit;
use super::witness::trusting;
use crate::error::ControlError;
use crate::problem::Reject;
use crate::registry::Registry;
use crate::time::unix_s;

/// Tokens per second: each is one signature, and sidecars keep them for half of their life.
const TOKENS_PER_S: u32 = 500;
/// How long the first key waits for receipts. Who is not heard of by then hears of it later.
const PUBLISH: Duration = Duration::from_secs(3);

/// Makes tokens.
pub(crate) struct Tokens {
    ca: CaService,
    registry: Registry,
    limit: Mutex<RateLimit>,
    /// Whoever makes the first key.
    first: tokio::sync::Mutex<()>,
}

impl Tokens {
    pub(crate) fn new(ca: CaService, registry: Registry) -> Self {
        Self {
            ca,
            registry,
            limit: Mutex::new(RateLimit::new(TOKENS_PER_S, Instant::now())),
            first: tokio::sync::Mutex::new(()),
        }
    }

    /// A token for the identity of a connection.
    ///
    /// # Errors
    /// 429 over the rate limit; 403 for what is revoked; otherwise what the authority or the store says.
    pub(crate) async fn issue(
        &self,
        request: &JwtRequest,
        attested: &SpiffeId,
    ) -> Result<JwtResponse, Reject> {
        if self.ca.bars(attested) {
            return Err(Reject::revoked(attested));
        }
        self.take_turn()?;
        if self.ca.authority().journal().active_jwt().is_none() {
            self.first_key().await?;
        }
        let (id, audience) = (attested.clone(), request.audience.clone());
        let issued = self
            .ca
            .sign(move |authority, now, _| authority.issue_jwt(&id, &audience, now));
        let IssuedJwt {
            token,
            expires,
            key,
        } = issued.await?;
        tracing::debug!(id = %attested, key, "token issued");
        Ok(JwtResponse {
            token,
            expires_unix: unix_s(expires),
        })
    }

    fn take_turn(&self) -> Result<(), Reject> {
        let mut limit = self.limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.take(Instant::now()).map_err(|after| {
            let mut reject = Reject::rate_limited(limit.rate(), after);
            reject.problem.message =
                format!("more than {TOKENS_PER_S} tokens per second are wanted; try again");
            reject
        })
    }

    /// Makes the first key, publishes it, and brings it into use.
    async fn first_key(&self) -> Result<(), Reject> {
        let _one = self.first.lock().await;
        let authority = self.ca.authority();
        let journal = authority.journal();
        if journal.active_jwt().is_some() {
            return Ok(());
        }
        let id = match journal.prepared_jwt() {
            Some(waiting) => waiting.id.clone(),
            None => prepare(&self.ca, Along::default()).await?,
        };
        let missing = self.published(Instant::now() + PUBLISH).await?;
        if !missing.is_empty() {
            tracing::warn!(
                missing = missing.join(","),
                "these sidecars do not say yet that they know the first key for tokens"
            );
        }
        activate(&self.ca, &id, Along::default()).await?;
        Ok(())
    }

    /// Waits until every connected sidecar trusts the present bundle. Those that do not by the deadline.
    async fn published(&self, deadline: Instant) -> Result<Vec<String>, ControlError> {
        let mut changes = self.registry.subscribe();
        loop {
            changes.mark_unchanged();
            let missing = missing(&self.ca, &self.registry).await?;
            if missing.is_empty() || Instant::now() >= deadline {
                return Ok(missing);
            }
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() {
                    return Ok(missing);
                },
                () = sleep_until(deadline) => {}
            }
        }
    }
}

/// Connected sidecars that do not say that they trust the present bundle.
async fn missing(ca: &CaService, registry: &Registry) -> Result<Vec<String>, ControlError> {
    let (revision, sequence) = ca.bundle_revision().await?;
    let now = ca.wall();
    Ok(registry.read(|table| trusting(table, revision, sequence, now).missing))
}

async fn prepare(ca: &CaService, along: Along) -> Result<String, ControlError> {
    ca.step(
        Box::new(|authority, keys, now, _| authority.prepare_jwt(keys, now)),
        |_| along,
    )
    .await?;
    let authority = ca.authority();
    let made = authority.journal().prepared_jwt();
    Ok(made.map(|slot| slot.id.clone()).unwrap_or_default())
}

async fn activate(ca: &CaService, id: &str, along: Along) -> Result<(), ControlError> {
    let id = id.to_owned();
    ca.step(
        Box::new(move |authority, _, now, _| authority.journal().activate_jwt(&id, now)),
        |_| along,
    )
    .await
    .map(drop)
}

async fn retire(ca: &CaService, id: &str, along: Along) -> Result<(), ControlError> {
    let id = id.to_owned();
    ca.step(
        Box::new(move |authority, _, now, _| authority.journal().retire_jwt(&id, now)),
        |_| along,
    )
    .await
    .map(drop)
}

/// Does what the schedule asks for.
pub(crate) async fn keep_jwt_keys(ca: &CaService) -> Result<(), ControlError> {
    let due = ca.authority().journal().jwt_due(ca.wall());
    match due {
        None => Ok(()),
        Some(JwtDue::Prepare) => prepare(ca, Along::default()).await.map(drop),
        Some(JwtDue::Activate(id)) => activate(ca, &id, Along::default()).await,
        Some(JwtDue::Retire(id)) => retire(ca, &id, Along::default()).await,
    }
}

fn manual(by: &str, verb: &str, slot: &str) -> Along {
    Along::event(Event::new("authority.by_hand", slot, by).with("verb", verb))
}

/// `weft ca prepare jwt`: its name.
pub(crate) async fn prepare_by_hand(ca: &CaService, by: &str) -> Result<String, Reject> {
    Ok(prepare(ca, manual(by, "prepare", "jwt")).await?)
}

/// `weft ca activate jwt-N`: only once every connected sidecar trusts it. Those left behind.
pub(crate) async fn activate_by_hand(
    ca: &CaService,
    registry: &Registry,
    id: &str,
    allow_missing: bool,
    by: &str,
) -> Result<Vec<String>, Reject> {
    ca.authority().journal().jwt_slot(id)?;
    let missing = missing(ca, registry).await?;
    if !missing.is_empty() && !allow_missing {
        return Err(Reject::new(
            StatusCode::CONFLICT,
            "not_acknowledged",
            format!(
                "{id} is not activated: it is not yet known to {}; wait for them, or leave them behind with --allow-missing",
                missing.join(", ")
            ),
        ));
    }
    activate(ca, id, manual(by, "activate", id)).await?;
    Ok(missing)
}

/// `weft ca revoke jwt-N`: it leaves the bundle, and its tokens are refused from then on.
pub(crate) async fn revoke_by_hand(ca: &CaService, id: &str, by: &str) -> Result<(), Reject> {
    let state = ca.authority().journal().jwt_slot(id)?.state;
    if state == SlotState::Active {
        return Err(Reject::new(
            StatusCode::CONFLICT,
            "transition",
            format!(
                "{id} signs now: replace it first with `weft ca prepare jwt` and `weft ca activate`"
            ),
        ));
    }
    retire(ca, id, manual(by, "revoke", id)).await?;
    Ok(())
}

/// Whether a name is that of a key for tokens.
pub(crate) fn is_jwt(slot: &str) -> bool {
    slot.starts_with("jwt-")
}
