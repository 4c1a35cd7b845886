//! What an operator does about delegates at the control node.

use std::time::Duration;

use http::StatusCode;
use weft_ca::audit::{Event, Head};
use weft_ca::{JoinToken, TokenRecord, check_life};
use weft_certs::Site;
use weft_env::Env;

use super::stored::{MAX_DELEGATES, Stored};
use crate::admin::types::{DelegateCreate, DelegateCreated, DelegateInfo, RevokeRequest, Revoked};
use crate::issue::{self, CaService};
use crate::problem::Reject;
use crate::store::{Condition, StoreError, Txn, json};
use crate::time::unix_s;

fn bad(error: &impl std::fmt::Display) -> Reject {
    Reject::bad_request("bad_site", error.to_string())
}

/// Authorizes a delegate, and makes the token that lets it in. One that is there already gets another token and follows the
/// new list and life from its next renewal on.
pub(crate) async fn create(
    env: &Env,
    ca: &CaService,
    request: &DelegateCreate,
    by: &str,
) -> Result<DelegateCreated, Reject> {
    let store = &**ca.store();
    let domain = &ca.config().trust_domain;
    let site = Site::new(&request.site, domain, &request.permitted).map_err(|e| bad(&e))?;
    let ttl = Duration::from_secs(request.ttl_s);
    check_life(ttl)?;
    let now = env.wall();
    let token = JoinToken::generate(&mut env.rng("delegate-token"));
    let token_ttl = Duration::from_secs(request.token_ttl_s);
    let record = TokenRecord::new(&token, site.delegate(), token_ttl, now)?;
    let expires = record.expires;
    let all = Stored::all(store).await?;
    let before = all.iter().find(|(_, stored)| stored.site == request.site);
    if before.is_none() && all.len() >= MAX_DELEGATES {
        return Err(Reject::new(
            StatusCode::CONFLICT,
            "too_many_sites",
            format!("there are {MAX_DELEGATES} delegates already, which is the limit"),
        ));
    }
    let kept = before.map(|(_, stored)| stored).filter(|s| !s.revoked);
    let stored = Stored {
        site: request.site.clone(),
        permitted: site.permitted(),
        ttl_s: request.ttl_s,
        created_unix: unix_s(now),
        revoked: false,
        token: Some(record),
        certificate: kept.and_then(|stored| stored.certificate.clone()),
        heard_unix: kept.map_or(0, |stored| stored.heard_unix),
        taken: kept.map_or_else(Head::default, |stored| stored.taken.clone()),
    };
    let key = Stored::key(&request.site);
    let condition = match before {
        Some((entry, _)) => Condition::At(key.clone(), entry.mod_revision),
        None => Condition::Absent(key.clone()),
    };
    let event = Event::new("delegate.authorized", site.delegate(), by)
        .with("site", site.name())
        .with("permitted", site.permitted().join(" "))
        .with("ttl_s", request.ttl_s);
    let txn = Txn::new().when(condition).put(key, json(&stored));
    ca.audit().commit(txn, vec![event]).await?;
    tracing::warn!(site = site.name(), "a delegate was authorized");
    Ok(DelegateCreated {
        site: request.site.clone(),
        spiffe_id: site.delegate().to_string(),
        permitted: site.permitted(),
        token: token.reveal().to_owned(),
        expires_unix: unix_s(expires),
        pin: ca.authority().pin()?.to_string(),
    })
}

/// All delegates, by site.
pub(crate) async fn list(ca: &CaService) -> Result<Vec<DelegateInfo>, StoreError> {
    let all = Stored::all(&**ca.store()).await?;
    Ok(all
        .iter()
        .map(|(_, stored)| stored.info(ca.wall()))
        .collect())
}

/// Ends a delegate, with everything that it ever issued.
pub(crate) async fn revoke(ca: &CaService, site: &str, by: &str) -> Result<Revoked, Reject> {
    let store = &**ca.store();
    let Some((entry, stored)) = Stored::load(store, site).await? else {
        return Err(Reject::new(
            StatusCode::NOT_FOUND,
            "no_such_site",
            format!("there is no delegate of a site {site}; `weft ca delegate list` shows all"),
        ));
    };
    let key = stored.certificate.as_ref().map(|known| known.key);
    if stored.revoked && key.is_none_or(|key| ca.ledger().list().has_key(&key)) {
        return Err(Reject::new(
            StatusCode::CONFLICT,
            "revocation",
            format!("the delegate of site {site} is already revoked"),
        ));
    }
    let ended = Stored {
        revoked: true,
        token: None,
        ..stored.clone()
    };
    let txn = Txn::new()
        .when(Condition::At(entry.key.clone(), entry.mod_revision))
        .put(entry.key.clone(), json(&ended));
    let event = Event::new("delegate.revoked", site, by).with(
        "key",
        key.map_or_else(|| "none".to_owned(), |key| key.to_string()),
    );
    ca.audit().commit(txn, vec![event]).await?;
    let Some(key) = key else {
        let list = ca.ledger().list();
        return Ok(Revoked {
            target: format!("the delegate of site {site}, which had not come yet"),
            edition: list.edition,
            revision: 0,
            at_unix_ms: crate::time::unix_ms(ca.wall()),
            serials: Vec::new(),
            tokens: 1,
        });
    };
    let request = RevokeRequest {
        key: Some(key.to_string()),
        reason: Some(format!("the delegate of site {site} is ended")),
        ..RevokeRequest::default()
    };
    issue::revoke(ca, &request, by).await
}
