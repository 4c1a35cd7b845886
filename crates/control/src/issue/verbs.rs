//! What an operator does to the authority by hand: prepare, activate, taint, revoke; request and import.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use weft_ca::audit::Event;
use weft_ca::{SlotState, Tier};
use weft_certs::{CertificateDer, RootPin};

use super::authority::Along;
use super::ledger::{Target, Unmoved};
use super::revoking::unmoved;
use super::witness::trusting;
use super::{CaService, Rotations, jwt};
use crate::admin::types::{ActivateRequest, CsrReply, ImportRequest, SlotRequest};
use crate::error::ControlError;
use crate::problem::Reject;
use crate::registry::{Registry, Sidecar};

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
