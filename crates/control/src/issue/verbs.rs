//! What an operator does to the authority by hand: prepare, activate, taint, revoke; request and import; revoke and
//! readmit identities.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use weft_ca::audit::Event;
use weft_ca::{SlotState, Tier};
use weft_certs::{CertificateDer, RootPin, SpiffeId};

use super::authority::Along;
use super::job::trusting;
use super::ledger::{Target, Unmoved};
use super::{CaService, Rotations, issued, jwt, tokens};
use crate::admin::types::{
    ActivateRequest, CsrReply, ImportRequest, ReadmitRequest, RevokeRequest, Revoked, SlotRequest,
};
use crate::error::ControlError;
use crate::problem::Reject;
use crate::registry::{Registry, Sidecar};
use crate::store::{StoreError, Txn};
use crate::time::unix_ms;

/// Another try after somebody else was faster.
const TRIES: usize = 3;

fn tier_of(role: &str) -> Result<Tier, Reject> {
    match role {
        "root" => Ok(Tier::Root),
        "issuing" => Ok(Tier::Issuing),
        other => Err(Reject::bad_request(
            "bad_role",
            format!("{other:?} is not a role: there are root, issuing and jwt"),
        )),
    }
}

fn manual(by: &str, verb: &str, slot: &str) -> Event {
    Event::new("authority.by_hand", slot, by).with("verb", verb)
}

/// Makes an authority that signs nothing yet. Its name.
pub(crate) async fn prepare(
    ca: &CaService,
    rotations: &Rotations,
    role: &str,
    by: &str,
) -> Result<String, Reject> {
    if role == "jwt" {
        return jwt::prepare_by_hand(ca, by).await;
    }
    let tier = tier_of(role)?;
    rotations.check_idle().await?;
    let event = manual(by, "prepare", role);
    ca.step(
        Box::new(move |authority, _, _, rng| authority.intend(tier, rng)),
        |_| Along::event(event),
    )
    .await?;
    let made = ca
        .step(
            Box::new(move |authority, keys, now, rng| match tier {
                Tier::Root => authority.prepare_root(keys, now, rng),
                Tier::Issuing => authority.prepare_issuing(keys, now, rng),
            }),
            |_| Along::default(),
        )
        .await;
    if let Err(error) = made {
        // The intent is of no use: nothing was made.
        roll_back(ca).await?;
        return Err(error.into());
    }
    let authority = ca.authority();
    let slot = authority.journal().prepared(tier);
    Ok(slot.map(|slot| slot.id.clone()).unwrap_or_default())
}

/// Takes back an intent that nobody carries out.
pub(crate) async fn roll_back(ca: &CaService) -> Result<(), ControlError> {
    if ca.authority().journal().intent().is_none() {
        return Ok(());
    }
    ca.step(
        Box::new(|authority, keys, _, _| authority.roll_back(keys)),
        |journal| {
            let slot = journal.trust_domain().to_string();
            Along::event(Event::new("authority.rolled_back", slot, "control"))
        },
    )
    .await
    .map(drop)
}

/// Brings a prepared authority into use. A root only if every live sidecar trusts it already.
pub(crate) async fn activate(
    ca: &CaService,
    rotations: &Rotations,
    registry: &Registry,
    request: &ActivateRequest,
    by: &str,
) -> Result<Vec<String>, Reject> {
    if jwt::is_jwt(&request.slot) {
        let allow_missing = request.allow_missing;
        return jwt::activate_by_hand(ca, registry, &request.slot, allow_missing, by).await;
    }
    rotations.check_idle().await?;
    let authority = ca.authority();
    let (tier, slot) = authority.journal().find(&request.slot)?;
    let id = slot.id.clone();
    let mut missing = Vec::new();
    if tier == Tier::Root {
        let (revision, sequence) = ca.bundle_revision().await?;
        let now = ca.wall();
        missing = registry.read(|table| trusting(table, revision, sequence, now).missing);
        if !missing.is_empty() && !request.allow_missing {
            return Err(Reject::new(
                StatusCode::CONFLICT,
                "not_acknowledged",
                format!(
                    "{id} is not activated: it is not yet trusted by {}; wait for them, or leave them behind with --allow-missing",
                    missing.join(", ")
                ),
            ));
        }
    }
    let event = manual(by, "activate", &id).with("missing", missing.join(","));
    ca.step(
        Box::new(move |authority, _, now, _| authority.journal().activate(tier, &id, now)),
        |_| Along::event(event),
    )
    .await?;
    if tier == Tier::Issuing {
        rotations.shared.own.renew().await?;
    }
    Ok(missing)
}

/// Notes that an authority's key may be in other hands.
pub(crate) async fn taint(ca: &CaService, request: &SlotRequest, by: &str) -> Result<(), Reject> {
    let authority = ca.authority();
    let (tier, slot) = authority.journal().find(&request.slot)?;
    let id = slot.id.clone();
    let event = manual(by, "taint", &id);
    ca.step(
        Box::new(move |authority, _, now, _| authority.journal().taint(tier, &id, now)),
        |_| Along::event(event),
    )
    .await?;
    Ok(())
}

/// Distrusts an authority at once: a root leaves the bundle, an issuing CA's key is revoked, so that nothing that it
/// ever signed is good, not even what a thief signs with it. The connected sidecars that this cuts off.
pub(crate) async fn revoke_authority(
    ca: &CaService,
    rotations: &Rotations,
    registry: &Registry,
    request: &SlotRequest,
    by: &str,
) -> Result<Vec<String>, Reject> {
    if jwt::is_jwt(&request.slot) {
        jwt::revoke_by_hand(ca, &request.slot, by).await?;
        return Ok(Vec::new());
    }
    rotations.check_idle().await?;
    let authority = ca.authority();
    let (tier, slot) = authority.journal().find(&request.slot)?;
    let (id, state, pin) = (slot.id.clone(), slot.state, slot.pin()?);
    if state == SlotState::Active {
        let role = tier.as_str();
        return Err(Reject::new(
            StatusCode::CONFLICT,
            "transition",
            format!("{id} signs now: replace it first with `weft ca rotate {role} --now`"),
        ));
    }
    let cut_off = cut_off(ca, registry, tier, &id);
    if !cut_off.is_empty() && !request.allow_missing {
        return Err(Reject::new(
            StatusCode::CONFLICT,
            "still_needed",
            format!(
                "{id} is not revoked: certificates of {} are under it; renew them with `weft cert rotate --all`, or cut them off with --allow-missing",
                cut_off.join(", ")
            ),
        ));
    }
    if tier == Tier::Issuing {
        distrust_key(ca, pin, by).await?;
    }
    if state != SlotState::Removed {
        let event = manual(by, "revoke", &id).with("cut_off", cut_off.join(","));
        ca.step(
            Box::new(move |authority, _, now, _| authority.journal().retire_now(tier, &id, now)),
            |_| Along::event(event),
        )
        .await?;
    }
    Ok(cut_off)
}

async fn distrust_key(ca: &CaService, pin: RootPin, by: &str) -> Result<(), Reject> {
    let before = ca.ledger();
    let next = match before.revoke(&Target::Key(pin), &[]) {
        Ok(next) => next,
        Err(Unmoved::Already(_)) => return Ok(()),
        Err(error) => return Err(unmoved(&error)),
    };
    let event = Event::new("revoked", pin, by).with("kind", "authority");
    ca.change_ledger(next, &before, Along::event(event)).await?;
    Ok(())
}

/// Live sidecars whose certificate is under this authority.
fn cut_off(ca: &CaService, registry: &Registry, tier: Tier, id: &str) -> Vec<String> {
    let authority = ca.authority();
    let below = authority.journal().slots(Tier::Issuing).iter();
    let serials: Vec<String> = below
        .filter(|slot| match tier {
            Tier::Root => slot.issuer.as_deref() == Some(id),
            Tier::Issuing => slot.id == id,
        })
        .filter_map(|slot| weft_certs::serial_of(&slot.certificate).ok())
        .collect();
    registry.read(|table| {
        let under = table
            .iter()
            .filter(|s| s.is_live() && serials.iter().any(|serial| serial == s.issuer()));
        under.map(Sidecar::label).collect()
    })
}

/// Makes the key of the next issuing CA and the request that a root elsewhere is to sign.
pub(crate) async fn csr(
    ca: &CaService,
    rotations: &Rotations,
    by: &str,
) -> Result<CsrReply, Reject> {
    rotations.check_idle().await?;
    let event = manual(by, "csr", "issuing");
    ca.step(
        Box::new(|authority, _, _, rng| authority.intend(Tier::Issuing, rng)),
        |_| Along::event(event),
    )
    .await?;
    let (sender, receiver) = std::sync::mpsc::channel();
    ca.step(
        Box::new(move |authority, keys, _, rng| {
            let (journal, csr) = authority.request_issuing(keys, rng)?;
            // The receiver is there: it is read below.
            let _ = sender.send(csr);
            Ok(journal)
        }),
        |_| Along::default(),
    )
    .await?;
    let csr = receiver.try_recv().unwrap_or_default();
    Ok(CsrReply {
        csr: STANDARD.encode(csr),
    })
}

/// Takes what came back. The names of what is prepared now.
pub(crate) async fn import(
    ca: &CaService,
    rotations: &Rotations,
    request: &ImportRequest,
    by: &str,
) -> Result<Vec<String>, Reject> {
    rotations.check_idle().await?;
    let certificates = request
        .certificates
        .iter()
        .map(|text| STANDARD.decode(text).map(CertificateDer::from))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| Reject::bad_request("bad_import", format!("it is not base64: {e}")))?;
    let event = manual(by, "import", "issuing").with("certificates", certificates.len());
    ca.step(
        Box::new(move |authority, keys, now, rng| {
            authority.import_issuing(&certificates, keys, now, rng)
        }),
        |_| Along::event(event),
    )
    .await?;
    let authority = ca.authority();
    let prepared = [Tier::Root, Tier::Issuing].map(|tier| authority.journal().prepared(tier));
    Ok(prepared
        .into_iter()
        .flatten()
        .map(|slot| slot.id.clone())
        .collect())
}

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

fn unmoved(error: &Unmoved) -> Reject {
    let status = match error {
        Unmoved::Not(_) => StatusCode::NOT_FOUND,
        Unmoved::Already(_) | Unmoved::Full => StatusCode::CONFLICT,
    };
    Reject::new(status, "revocation", error.to_string())
}
