//! One-time join tokens: made by an operator, used once by a sidecar.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::{Deserialize, Serialize};
use weft_ca::audit::Event;
use weft_ca::{JoinToken, TokenError, TokenRecord};
use weft_certs::{SpiffeId, TrustDomain};
use weft_env::Env;
use weft_env::mutants::{Mutant, broken};
use weft_resources::{SYSTEM_NAMESPACE, ServiceName};

use super::CaService;
use crate::admin::types::{TokenInfo, TokenRequest, TokenState};
use crate::problem::Reject;
use crate::store::{Condition, Entry, Store, StoreError, Txn, json};
use crate::time::unix_s;

const PREFIX: &str = "token/";
/// A token is for now: whoever needs one next week makes it next week.
const MAX_TTL: Duration = Duration::from_secs(7 * 24 * 3600);
/// Used and expired ones are kept this long after their end, to answer questions.
const KEEP: Duration = Duration::from_secs(24 * 3600);
/// Most tokens kept.
const MAX_TOKENS: usize = 10_000;
/// Expiries that one transaction records.
const EXPIRIES_AT_ONCE: usize = 1000;
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
    /// An operator has taken it back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    revoked: bool,
    /// That nobody used it in time is in the audit log.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    expiry_noted: bool,
}

impl Stored {
    fn read(entry: &Entry) -> Option<Self> {
        serde_json::from_slice(&entry.value).ok()
    }

    fn is_over(&self, now: SystemTime) -> bool {
        let end = self.record.used.unwrap_or(self.record.expires);
        end + KEEP < now
    }

    fn info(&self, now: SystemTime) -> TokenInfo {
        let record = &self.record;
        TokenInfo {
            id: short(&record.hash),
            spiffe_id: record.spiffe_id.to_string(),
            created_unix: unix_s(record.created),
            expires_unix: unix_s(record.expires),
            state: match record.used {
                Some(_) => TokenState::Used,
                None if self.revoked => TokenState::Revoked,
                None if record.expires <= now => TokenState::Expired,
                None => TokenState::Unused,
            },
            used_unix: record.used.map(unix_s),
            used_by: self
                .used_by
                .map(|addr| addr.ip().to_canonical().to_string()),
        }
    }
}

/// Makes a token for a service, and clears away tokens whose time is long over.
pub(crate) async fn create(
    env: &Env,
    ca: &CaService,
    request: &TokenRequest,
    by: &str,
) -> Result<(JoinToken, SpiffeId, SystemTime), Reject> {
    let store = &**ca.store();
    let id = identity(&ca.config().trust_domain, request)?;
    ca.authority().check_site(&id)?;
    if ca.ledger().list().bars(&id) {
        return Err(Reject::revoked(&id));
    }
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
        revoked: false,
        expiry_noted: false,
    };
    let expires = stored.record.expires;
    let key = key(&token);
    let mut txn = Txn::new()
        .when(Condition::Absent(key.clone()))
        .put(key, json(&stored));
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
    let event = Event::new("token.created", &id, by)
        .with("token", short(&token.key()))
        .with("expires_unix", unix_s(expires));
    ca.audit().commit(txn, vec![event]).await?;
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

    /// Its first digits, as lists show them.
    pub(crate) fn shown(&self) -> String {
        short(&self.stored.record.hash)
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
    if stored.revoked {
        return Err(Reject::new(
            StatusCode::UNAUTHORIZED,
            "token_revoked",
            "the join token was taken back by an operator: make a new one with `weft token create`",
        ));
    }
    let used = stored.record.redeem(&token, now)?;
    Ok(Redeemable {
        entry,
        stored: Stored {
            record: used,
            used_by: Some(remote),
            revoked: false,
            expiry_noted: false,
        },
    })
}

/// What uses it, durably: of two transactions at the same time one fails. And when it is used.
pub(crate) fn redeem(token: Redeemable) -> (Txn, SystemTime) {
    let at = token.stored.record.used.unwrap_or(SystemTime::UNIX_EPOCH);
    let mut stored = token.stored;
    if broken(Mutant::KeepsTokens) {
        stored.record.used = None;
    }
    let json = json(&stored);
    let txn = Txn::new()
        .when(Condition::At(
            token.entry.key.clone(),
            token.entry.mod_revision,
        ))
        .put(token.entry.key, json);
    (txn, at)
}

/// Why nothing was issued for a token that was good a moment ago.
pub(crate) enum Lost {
    /// Somebody else used it.
    Race(Reject),
    /// For reasons that are not the token's.
    Other(Reject),
}

/// A conflict means that the token was used by someone else a moment ago.
pub(crate) fn lost_race(reject: Reject, at: SystemTime) -> Lost {
    match reject.problem.code.as_str() {
        "conflict" => Lost::Race(TokenError::Used { at }.into()),
        _ => Lost::Other(reject),
    }
}

/// What may be shown of a token that somebody presented.
pub(crate) fn shown(presented: &str) -> String {
    JoinToken::parse(presented).map_or_else(|_| "not a token".to_owned(), |t| short(&t.key()))
}

fn short(hash: &str) -> String {
    hash.chars().take(SHOWN).collect()
}

/// Records which tokens have expired unused since the last time.
pub(crate) async fn note_expired(ca: &CaService) -> Result<(), StoreError> {
    let now = ca.wall();
    let (mut txn, mut events) = (Txn::new(), Vec::new());
    for entry in ca.store().range(PREFIX).await?.entries {
        let Some(mut stored) = Stored::read(&entry) else {
            continue;
        };
        let expired = stored.info(now).state == TokenState::Expired;
        if !expired || stored.expiry_noted || events.len() >= EXPIRIES_AT_ONCE {
            continue;
        }
        stored.expiry_noted = true;
        let event = Event::new("token.expired", &stored.record.spiffe_id, "control")
            .with("token", short(&stored.record.hash))
            .with("expired_unix", unix_s(stored.record.expires));
        events.push(event);
        txn = txn
            .when(Condition::At(entry.key.clone(), entry.mod_revision))
            .put(entry.key, json(&stored));
    }
    if !events.is_empty() {
        ca.audit().commit(txn, events).await?;
    }
    Ok(())
}

/// With all unused tokens of an identity made useless, and the first digits of each.
pub(crate) async fn revoke_all(
    store: &dyn Store,
    id: &SpiffeId,
    mut txn: Txn,
) -> Result<(Txn, Vec<String>), StoreError> {
    let mut revoked = Vec::new();
    for entry in store.range(PREFIX).await?.entries {
        let Some(mut stored) = Stored::read(&entry) else {
            continue;
        };
        if stored.record.spiffe_id != *id || stored.record.used.is_some() || stored.revoked {
            continue;
        }
        stored.revoked = true;
        txn = txn
            .when(Condition::At(entry.key.clone(), entry.mod_revision))
            .put(entry.key.clone(), json(&stored));
        revoked.push(short(&stored.record.hash));
    }
    Ok((txn, revoked))
}

/// Makes the one unused token useless whose id begins like this.
pub(crate) async fn revoke(store: &dyn Store, id: &str) -> Result<(Txn, SpiffeId), Reject> {
    let found: Vec<(Entry, Stored)> = store
        .range(&format!("{PREFIX}{id}"))
        .await?
        .entries
        .into_iter()
        .filter_map(|entry| Stored::read(&entry).map(|stored| (entry, stored)))
        .collect();
    let none = |message: String| Reject::new(StatusCode::NOT_FOUND, "no_such_token", message);
    match found.as_slice() {
        [(entry, stored)] if stored.record.used.is_none() => {
            let mut revoked = stored.clone();
            revoked.revoked = true;
            let txn = Txn::new()
                .when(Condition::At(entry.key.clone(), entry.mod_revision))
                .put(entry.key.clone(), json(&revoked));
            Ok((txn, stored.record.spiffe_id.clone()))
        }
        [_] => Err(none(format!(
            "token {id} was used already; end what it let in with: weft cert revoke"
        ))),
        [] => Err(none(format!(
            "there is no token {id}; weft token list shows them"
        ))),
        _ => Err(none(format!(
            "more than one token begins with {id}; give more of it"
        ))),
    }
}

fn key(token: &JoinToken) -> String {
    format!("{PREFIX}{}", token.key())
}

#[cfg(test)]
mod tests;
