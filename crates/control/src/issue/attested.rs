//! Joining by an attestation in place of a token.

use std::net::SocketAddr;
use std::time::SystemTime;

use http::StatusCode;
use weft_ca::BACKDATE;
use weft_ca::audit::Event;
use weft_certs::SpiffeId;
use weft_wire::{Attestation, JoinRequest, JoinResponse};

use super::CaService;
use super::authority::Along;
use super::service::{check_clock, decode, response};
use crate::attest::{Attested, Attestors, Facts, Occasion, Refused, identity};
use crate::problem::Reject;

/// An SVID for whoever proves to be somebody that the operator's rules let in.
pub(crate) async fn join_attested(
    ca: &CaService,
    attestors: &Attestors,
    request: &JoinRequest,
    attestation: &Attestation,
    remote: SocketAddr,
    now: SystemTime,
) -> Result<JoinResponse, Reject> {
    let by = remote.to_string();
    let csr = decode(&request.csr);
    let admitted = match &csr {
        Ok(csr) => admit(ca, attestors, request, attestation, csr, now).await,
        Err(reject) => Err((None, reject.clone().into())),
    };
    match admitted {
        Ok((id, facts)) => {
            let event = with(Event::new("attestation.accepted", &id, &by), &facts);
            let issued = ca.issue(&csr?, &id, &by, Along::event(event)).await?;
            tracing::info!(id = %issued.id, %remote, "a sidecar joined by attestation");
            Ok(response(ca, &issued))
        }
        Err((id, refused)) => {
            let subject = id.map_or_else(|| "unknown".to_owned(), |id| id.to_string());
            let event = Event::new("attestation.refused", subject, &by)
                .with("code", &refused.reject.problem.code)
                .with("reason", &refused.reject.problem.message);
            ca.audit().refused(with(event, &refused.facts)).await;
            Err(refused.reject)
        }
    }
}

fn with(event: Event, facts: &Facts) -> Event {
    let facts = facts.iter();
    facts.fold(event, |event, (name, value)| event.with(name, value))
}

/// Whom to certify, and by what right; or why nobody, and who it would have been.
async fn admit(
    ca: &CaService,
    attestors: &Attestors,
    request: &JoinRequest,
    attestation: &Attestation,
    csr: &[u8],
    now: SystemTime,
) -> Result<(SpiffeId, Facts), (Option<SpiffeId>, Refused)> {
    let nobody = |refused: Refused| (None, refused);
    if !request.token.is_empty() {
        let message = "a join has a token or an attestation, not both: leave one out";
        return Err(nobody(Reject::bad_request("two_proofs", message).into()));
    }
    check_clock(request.now_unix_ms, now, ca.config().leaf_ttl)
        .map_err(|reject| nobody(reject.into()))?;
    let bundle = ca.authority().bundle();
    let occasion = Occasion {
        bundle: &bundle,
        csr,
        now,
    };
    let attested = attestors.attest(attestation, &occasion).await;
    let attested = attested.map_err(nobody)?;
    let id = identity(&bundle, &attested.service);
    let id = id.map_err(|reject| nobody(reject.into()))?;
    match check_revoked(ca, &id, &attested) {
        Ok(()) => Ok((id, attested.facts)),
        Err(reject) => {
            let facts = attested.facts;
            Err((Some(id), Refused { reject, facts }))
        }
    }
}

/// A revoked identity gets nothing by whatever proof; one that was readmitted nothing by a proof from before; a
/// machine's key can be revoked as any other.
fn check_revoked(ca: &CaService, id: &SpiffeId, attested: &Attested) -> Result<(), Reject> {
    let list = ca.ledger().list();
    if list.bars(id) {
        return Err(Reject::revoked(id));
    }
    if let Some(key) = attested.key.filter(|key| list.has_key(key)) {
        return Err(Reject::new(
            StatusCode::FORBIDDEN,
            "revoked_key",
            format!(
                "the machine's key {key} is revoked: give the machine a new key and certificate"
            ),
        ));
    }
    // What was issued then would begin so much earlier, and is compared by that.
    let issued = attested
        .issued
        .map(|at| at.checked_sub(BACKDATE).unwrap_or(at));
    match issued {
        Some(at) if list.revokes_issued(id, at) => Err(Reject::new(
            StatusCode::FORBIDDEN,
            "old_proof",
            format!(
                "the token is older than the readmission of {id}, and dead since then: start the pod again for a new one"
            ),
        )),
        _ => Ok(()),
    }
}
