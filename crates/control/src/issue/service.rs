//! Join and renew: from an attested identity and a certificate request to an SVID.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use weft_ca::audit::Event;
use weft_ca::{BACKDATE, Issued};
use weft_certs::SpiffeId;
use weft_wire::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};

use super::authority::Along;
use super::tokens::Lost;
use super::{CaService, tokens};
use crate::problem::Reject;
use crate::store::Store;

/// A first SVID for whoever holds a token. The token is used up only if there is something to give.
pub(crate) async fn join(
    ca: &CaService,
    store: &dyn Store,
    request: &JoinRequest,
    remote: SocketAddr,
    now: SystemTime,
) -> Result<JoinResponse, Reject> {
    let by = remote.to_string();
    let token = match tokens::check(store, &request.token, remote, now).await {
        Ok(token) => token,
        Err(reject) => return Err(token_refused(ca, &request.token, &by, reject).await),
    };
    let (csr, id) = (decode(&request.csr)?, token.identity().clone());
    if let Err(mut reject) = check_clock(request.now_unix_ms, now, ca.config().leaf_ttl) {
        reject.problem.message.push_str("; the token is still good");
        let event = Event::new("certificate.refused", &id, &by)
            .with("code", &reject.problem.code)
            .with("reason", &reject.problem.message);
        ca.audit().refused(event).await;
        return Err(reject);
    }
    let event = Event::new("token.used", &id, &by).with("token", token.shown());
    let (txn, used) = tokens::redeem(token);
    let along = Along {
        txn,
        events: vec![event],
    };
    match ca.issue(&csr, &id, &by, along).await {
        Ok(issued) => {
            tracing::info!(id = %issued.id, %remote, "a sidecar joined");
            Ok(response(ca, &issued))
        }
        // Others are in the log already: the certificate was refused, and the token is as good as before.
        Err(reject) => match tokens::lost_race(reject, used) {
            Lost::Race(reject) => Err(token_refused(ca, &request.token, &by, reject).await),
            Lost::Other(reject) => Err(reject),
        },
    }
}

/// Whether a certificate made now holds by the joiner's clock, if it says what that shows.
pub(super) fn check_clock(
    theirs: Option<u64>,
    now: SystemTime,
    ttl: Duration,
) -> Result<(), Reject> {
    let Some(theirs) = theirs.map(Duration::from_millis) else {
        return Ok(());
    };
    let ours = now.duration_since(SystemTime::UNIX_EPOCH);
    let ours = ours.unwrap_or_default();
    let (behind, ahead) = (ours.saturating_sub(theirs), theirs.saturating_sub(ours));
    let (off, which) = match (behind > BACKDATE, ahead >= ttl) {
        (true, _) => (behind, "behind"),
        (_, true) => (ahead, "ahead of"),
        _ => return Ok(()),
    };
    Err(Reject::new(
        StatusCode::CONFLICT,
        "clock_skew",
        format!(
            "the joiner's clock is {} s {which} the control node's, so that no certificate made now would hold there: set the clock that is wrong, and run it again",
            off.as_secs()
        ),
    ))
}

/// Of the token only what its list shows goes into the log.
async fn token_refused(ca: &CaService, presented: &str, by: &str, reject: Reject) -> Reject {
    let event = Event::new("token.refused", tokens::shown(presented), by)
        .with("code", &reject.problem.code)
        .with("reason", &reject.problem.message);
    ca.audit().refused(event).await;
    reject
}

/// The next SVID for the identity of the connection, and no other.
pub(crate) async fn renew(
    ca: &CaService,
    request: &RenewRequest,
    attested: &SpiffeId,
    remote: SocketAddr,
) -> Result<RenewResponse, Reject> {
    let csr = decode(&request.csr)?;
    let by = remote.to_string();
    let issued = ca.issue(&csr, attested, &by, Along::default()).await?;
    Ok(response(ca, &issued))
}

pub(crate) fn decode(csr: &str) -> Result<Vec<u8>, Reject> {
    STANDARD.decode(csr).map_err(|error| {
        Reject::bad_request(
            "bad_csr",
            format!("the certificate request is not base64: {error}"),
        )
    })
}

pub(super) fn response(ca: &CaService, issued: &Issued) -> JoinResponse {
    let bundles: BTreeMap<_, _> = ca
        .bundles()
        .iter()
        .map(|bundle| (bundle.trust_domain.to_string(), bundle.to_jwks()))
        .collect();
    JoinResponse {
        chain: issued
            .chain
            .iter()
            .map(|der| STANDARD.encode(der))
            .collect(),
        bundles,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_by_which_a_new_certificate_would_not_hold_costs_no_token() {
        let (now, hour) = (
            SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            Duration::from_secs(3_600),
        );
        let told = |theirs: u64| check_clock(Some(theirs * 1_000), now, hour);
        for good in [1_000_000, 1_000_000 - 60, 1_003_599] {
            assert!(told(good).is_ok(), "{good}");
        }
        assert!(check_clock(None, now, hour).is_ok());
        for (bad, word) in [
            (1_000_000 - 61, "61 s behind"),
            (0, "behind"),
            (1_003_600, "3600 s ahead"),
        ] {
            let reject = told(bad).unwrap_err();
            assert!(reject.problem.message.contains(word), "{reject:?}");
            assert_eq!(reject.problem.code, "clock_skew");
        }
    }
}
