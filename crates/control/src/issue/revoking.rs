//! Ends identities, keys and certificates, and lets identities in again.

use http::StatusCode;
use weft_ca::Tier;
use weft_ca::audit::Event;
use weft_certs::{RootPin, SpiffeId};

use super::authority::Along;
use super::ledger::{Target, Unmoved};
use super::{CaService, issued, tokens};
use crate::admin::types::{ReadmitRequest, RevokeRequest, Revoked};
use crate::error::ControlError;
use crate::problem::Reject;
use crate::store::{StoreError, Txn};
use crate::time::unix_ms;

/// Another try after somebody else was faster.
const TRIES: usize = 3;

fn target(request: &RevokeRequest) -> Result<Target, Reject> {
    let bad = |message: String| Reject::bad_request("bad_target", message);
    match (&request.spiffe_id, &request.key, &request.serial) {
        (Some(id), None, None) => SpiffeId::parse(id)
            .map(Target::Identity)
            .map_err(|e| bad(e.to_string())),
        (None, Some(key), None) => RootPin::parse(key)
            .map(Target::Key)
            .map_err(|_| bad(format!("{key:?} is not a key: expected sha256:<64 hexadecimal digits>, as `weft cert inspect` prints it"))),
        (None, None, Some(serial)) => {
            let serial = serial.trim_start_matches('0').to_ascii_lowercase();
            let serial = match serial.len() % 2 {
                0 => serial,
                _ => format!("0{serial}"),
            };
            match !serial.is_empty() && serial.len() <= 40 && serial.bytes().all(|b| b.is_ascii_hexdigit()) {
                true => Ok(Target::Serial(serial)),
                false => Err(bad("a serial number is up to 40 hexadecimal digits, as `weft cert show` prints it".to_owned())),
            }
        }
        _ => Err(bad("name one thing: an identity, a key or a serial number".to_owned())),
    }
}

/// What must not be revoked this way: it would take the mesh down with it.
fn check_target(ca: &CaService, target: &Target) -> Result<(), Reject> {
    let refuse = |message: String| Err(Reject::new(StatusCode::CONFLICT, "not_revocable", message));
    match target {
        Target::Identity(id) if weft_ca::is_reserved(id) => refuse(format!(
            "{id} is the control node itself: every sidecar would lose it"
        )),
        Target::Identity(id) if *id.trust_domain() != ca.config().trust_domain => refuse(format!(
            "{id} is not in trust domain {}, which this authority serves",
            ca.config().trust_domain
        )),
        Target::Key(key) => {
            let authority = ca.authority();
            for tier in [Tier::Root, Tier::Issuing] {
                for slot in authority.journal().slots(tier) {
                    if slot.is_live() && slot.pin()? == *key {
                        return refuse(format!(
                            "that is the key of {id}: replace it, then distrust it with `weft ca revoke {id}`",
                            id = slot.id
                        ));
                    }
                }
            }
            Ok(())
        }
        Target::Identity(_) | Target::Serial(_) => Ok(()),
    }
}

/// Ends an identity, a key or a certificate: stored, pushed and recorded at once, tokens included.
pub(crate) async fn revoke(
    ca: &CaService,
    request: &RevokeRequest,
    by: &str,
) -> Result<Revoked, Reject> {
    let target = target(request)?;
    check_target(ca, &target)?;
    for _ in 0..TRIES {
        let before = ca.ledger();
        let live = issued::live(&**ca.store(), ca.wall()).await?;
        let next = before.revoke(&target, &live).map_err(|e| unmoved(&e))?;
        let (txn, tokens) = match &target {
            Target::Identity(id) => tokens::revoke_all(&**ca.store(), id, Txn::new()).await?,
            Target::Key(_) | Target::Serial(_) => (Txn::new(), Vec::new()),
        };
        let dead: Vec<_> = live.iter().filter(|leaf| target.concerns(leaf)).collect();
        let event = Event::new("revoked", &target, by)
            .with("certificates", dead.len())
            .with("tokens", tokens.len())
            .with("reason", request.reason.as_deref().unwrap_or("none given"));
        let void = tokens
            .iter()
            .map(|token| Event::new("token.revoked", &target, by).with("token", token));
        let along = Along {
            txn,
            events: std::iter::once(event).chain(void).collect(),
        };
        let at_unix_ms = unix_ms(ca.wall());
        match ca.change_ledger(next, &before, along).await {
            Ok((revision, edition)) => {
                tracing::warn!(%target, edition, certificates = dead.len(), tokens = tokens.len(), "revoked");
                return Ok(Revoked {
                    target: target.to_string(),
                    edition,
                    revision,
                    at_unix_ms,
                    serials: dead.iter().map(|leaf| leaf.serial.clone()).collect(),
                    tokens: tokens.len(),
                });
            }
            Err(ControlError::Store(StoreError::Conflict { .. })) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Reject::new(
        StatusCode::CONFLICT,
        "conflict",
        "others change the list of what is revoked at the same time; try again",
    ))
}

/// Lets an identity in again. Whatever it had before stays dead: it needs a new token.
pub(crate) async fn readmit(
    ca: &CaService,
    request: &ReadmitRequest,
    by: &str,
) -> Result<u64, Reject> {
    let id = SpiffeId::parse(&request.spiffe_id)
        .map_err(|e| Reject::bad_request("bad_target", e.to_string()))?;
    let before = ca.ledger();
    let longest = ca.config().max_leaf_ttl;
    let next = before.readmit(&id, longest, ca.wall());
    let next = next.map_err(|e| unmoved(&e))?;
    let event = Event::new("readmitted", &id, by);
    let (_, edition) = ca.change_ledger(next, &before, Along::event(event)).await?;
    tracing::warn!(%id, edition, "readmitted");
    Ok(edition)
}

/// Forgets entries that can no longer matter.
pub(crate) async fn prune(ca: &CaService) -> Result<(), ControlError> {
    let before = ca.ledger();
    if let Some(next) = before.pruned(ca.wall()) {
        ca.change_ledger(next, &before, Along::default()).await?;
    }
    issued::forget_ended(&**ca.store(), ca.wall()).await?;
    Ok(())
}

/// Why what is revoked stays as it was.
pub(super) fn unmoved(error: &Unmoved) -> Reject {
    let status = match error {
        Unmoved::Not(_) => StatusCode::NOT_FOUND,
        Unmoved::Already(_) | Unmoved::Full => StatusCode::CONFLICT,
    };
    Reject::new(status, "revocation", error.to_string())
}
