//! Join and renew: from an attested identity and a certificate request to an SVID.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::Value;
use weft_ca::Tier;
use weft_ca::audit::Event;
use weft_ca::{BACKDATE, Issued};
use weft_certs::{PeerIdentity, TrustBundle};
use weft_wire::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};

use super::authority::Along;
use super::tokens::Lost;
use super::{CaService, issued, tokens};
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
    peer: &PeerIdentity,
    remote: SocketAddr,
) -> Result<RenewResponse, Reject> {
    let csr = decode(&request.csr)?;
    let by = remote.to_string();
    if let Err(reject) = check_own(ca, peer).await {
        let event = Event::new("certificate.refused", &peer.id, &by)
            .with("code", &reject.problem.code)
            .with("serial", &peer.serial);
        ca.audit().refused(event).await;
        return Err(reject);
    }
    let issued = ca.issue(&csr, &peer.id, &by, Along::default()).await?;
    Ok(response(ca, &issued))
}

/// Where others certify identities of this mesh too, only what was issued here is renewed here: an identity that its
/// provider takes back must not live on by another certificate.
async fn check_own(ca: &CaService, peer: &PeerIdentity) -> Result<(), Reject> {
    let authority = ca.authority();
    let journal = authority.journal();
    let alone = journal.foreign().is_empty() && journal.active(Tier::Root)?.key.is_some();
    // A delegate is there to renew what the control node has issued.
    let delegate = authority.site().is_some();
    if alone || delegate || issued::is_of(&**ca.store(), &peer.serial, &peer.id).await? {
        return Ok(());
    }
    Err(Reject::new(
        StatusCode::FORBIDDEN,
        "not_issued_here",
        format!(
            "the certificate of {} was not issued here, and is renewed by whoever issued it; to have one of this mesh, join with a token (`weft token create`)",
            peer.id
        ),
    ))
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
    JoinResponse {
        chain: issued
            .chain
            .iter()
            .map(|der| STANDARD.encode(der))
            .collect(),
        bundles: bundles(ca),
    }
}

/// Whom the mesh trusts, as it travels.
pub(crate) fn bundles(ca: &CaService) -> BTreeMap<String, Value> {
    let bundles = ca.bundles();
    let named = |bundle: &TrustBundle| (bundle.trust_domain.to_string(), bundle.to_jwks());
    bundles.iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_env::Env;

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

    #[tokio::test]
    async fn where_others_certify_too_only_what_was_issued_here_is_renewed() {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let (store, ca) = crate::testing::authority(&env, dir.path()).await;
        let peer = crate::testing::peer("invoices");
        assert!(check_own(&ca, &peer).await.is_ok(), "nobody else can have");

        let elsewhere = tempfile::tempdir().unwrap();
        let (_, other) = crate::testing::authority(&env, elsewhere.path()).await;
        let foreign = other.authority().bundle().roots;
        let trusts = ca.step(
            Box::new(move |authority, _, _, _| Ok(authority.journal().with_foreign(foreign))),
            |_| Along::default(),
        );
        trusts.await.unwrap();
        let reject = check_own(&ca, &peer).await.unwrap_err();
        assert_eq!(reject.problem.code, "not_issued_here");

        let csr = weft_ca::make_csr(None).unwrap().csr;
        let issued = ca
            .issue(&csr, &peer.id, "test", Along::default())
            .await
            .unwrap();
        let own = PeerIdentity {
            serial: issued.serial,
            ..peer
        };
        assert!(check_own(&ca, &own).await.is_ok());
        let borrowed = PeerIdentity {
            id: crate::testing::id("orders"),
            ..own
        };
        assert!(check_own(&ca, &borrowed).await.is_err(), "another's serial");
        drop(store);
    }
}
