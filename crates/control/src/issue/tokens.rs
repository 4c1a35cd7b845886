//! One-time join tokens: made by an operator, used once by a sidecar.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use weft_ca::{JoinToken, TokenError, TokenRecord};
use weft_certs::{SpiffeId, TrustDomain};
use weft_env::Env;
use weft_resources::{SYSTEM_NAMESPACE, ServiceName};

use crate::admin::types::{TokenInfo, TokenRequest, TokenState};
use crate::problem::Reject;
use crate::store::{Condition, Entry, Store, StoreError, Txn};
use crate::time::unix_s;

const PREFIX: &str = "token/";
/// A token is for now: whoever needs one next week makes it next week.
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Used and expired ones are kept this long after their end, to answer questions.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Most tokens kept.
const MAX_TOKENS: usize = 10_000;
/// Digits of the hash that are shown.
const SHOWN: usize = 12;

/// A token as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    record: TokenRecord,
    /// Address that used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used_by: Option<SocketAddr>,
}

impl Stored {
    fn read(entry: &Entry) -> Option<Self> {
        serde_json::from_slice(&entry.value).ok()
    }

    fn json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a token record has string keys only")
    }

    fn is_over(&self, now: SystemTime) -> bool {
        let end = self.record.used.unwrap_or(self.record.expires);
        end + KEEP < now
    }

    fn info(&self, now: SystemTime) -> TokenInfo {
        let record = &self.record;
        TokenInfo {
            id: record.hash.chars().take(SHOWN).collect(),
            spiffe_id: record.spiffe_id.to_string(),
            created_unix: unix_s(record.created),
            expires_unix: unix_s(record.expires),
            state: match record.used {
                Some(_) => TokenState::Used,
                None if record.expires <= now => TokenState::Expired,
                None => TokenState::Unused,
            },
            used_unix: record.used.map(unix_s),
            used_by: self.used_by.map(|addr| addr.to_string()),
        }
    }
}

/// Makes a token for a service, and clears away tokens whose time is long over.
pub(crate) async fn create(
    env: &Env,
    store: &dyn Store,
    trust_domain: &TrustDomain,
    request: &TokenRequest,
) -> Result<(JoinToken, SpiffeId, SystemTime), Reject> {
    let id = identity(trust_domain, request)?;
    let ttl = Duration::from_secs(request.ttl_s);
    if ttl.is_zero() || ttl > MAX_TTL {
        return Err(Reject::bad_request(
            "token_ttl",
            format!(
                "a token lives between 1 s and {} days; give a --ttl in between",
                MAX_TTL.as_secs() / 86_400
            ),
        ));
    }
    let now = env.wall();
    let token = JoinToken::generate(&mut env.rng("join-token"));
    let stored = Stored {
        record: TokenRecord::new(&token, id.clone(), ttl, now)?,
        used_by: None,
    };
    let expires = stored.record.expires;
    let key = key(&token);
    let mut txn = Txn::new()
        .when(Condition::Absent(key.clone()))
        .put(key, stored.json());
    let mut kept = 0;
    for entry in &store.range(PREFIX).await?.entries {
        match Stored::read(entry) {
            Some(stored) if !stored.is_over(now) => kept += 1,
            _ => txn = txn.delete(&entry.key),
        }
    }
    if kept >= MAX_TOKENS {
        return Err(Reject::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too_many_tokens",
            format!("there are {MAX_TOKENS} tokens already; wait until some have expired"),
        ));
    }
    store.commit(txn).await?;
    tracing::info!(%id, ttl_s = request.ttl_s, "join token made");
    Ok((token, id, expires))
}

fn identity(trust_domain: &TrustDomain, request: &TokenRequest) -> Result<SpiffeId, Reject> {
    if request.namespace == SYSTEM_NAMESPACE {
        return Err(Reject::new(
            StatusCode::FORBIDDEN,
            "reserved_namespace",
            format!(
                "the namespace {SYSTEM_NAMESPACE} is reserved for weft itself; choose another with --namespace"
            ),
        ));
    }
    let service = ServiceName::new(&request.namespace, &request.service)
        .map_err(|error| Reject::bad_request("bad_name", error.to_string()))?;
    SpiffeId::for_service(trust_domain, service.namespace(), service.name())
        .map_err(|error| Reject::bad_request("bad_name", error.to_string()))
}

/// All tokens, newest first.
pub(crate) async fn list(store: &dyn Store, now: SystemTime) -> Result<Vec<TokenInfo>, StoreError> {
    let range = store.range(PREFIX).await?;
    let mut tokens: Vec<TokenInfo> = range
        .entries
        .iter()
        .filter_map(|entry| Some(Stored::read(entry)?.info(now)))
        .collect();
    tokens.sort_by(|a, b| (b.created_unix, &a.id).cmp(&(a.created_unix, &b.id)));
    Ok(tokens)
}

/// A token that was found good. It is not used yet.
#[derive(Debug)]
pub(crate) struct Redeemable {
    entry: Entry,
    stored: Stored,
}

impl Redeemable {
    /// The identity that it gives.
    pub(crate) fn identity(&self) -> &SpiffeId {
        &self.stored.record.spiffe_id
    }
}

/// Checks a token without using it.
pub(crate) async fn check(
    store: &dyn Store,
    presented: &str,
    remote: SocketAddr,
    now: SystemTime,
) -> Result<Redeemable, Reject> {
    let token = JoinToken::parse(presented)?;
    let entry = store.get(&key(&token)).await?.ok_or(TokenError::Unknown)?;
    let stored = Stored::read(&entry).ok_or(TokenError::Unknown)?;
    let used = stored.record.redeem(&token, now)?;
    Ok(Redeemable {
        entry,
        stored: Stored {
            record: used,
            used_by: Some(remote),
        },
    })
}

/// Uses it, durably. Of two at the same time one fails.
pub(crate) async fn redeem(store: &dyn Store, token: Redeemable) -> Result<(), Reject> {
    let txn = Txn::new()
        .when(Condition::At(
            token.entry.key.clone(),
            token.entry.mod_revision,
        ))
        .put(token.entry.key, token.stored.json());
    match store.commit(txn).await {
        Ok(_) => Ok(()),
        Err(StoreError::Conflict { .. }) => {
            let at = token.stored.record.used.unwrap_or(SystemTime::UNIX_EPOCH);
            Err(TokenError::Used { at }.into())
        }
        Err(error) => Err(error.into()),
    }
}

fn key(token: &JoinToken) -> String {
    format!("{PREFIX}{}", token.key())
}

#[cfg(test)]
mod tests;
