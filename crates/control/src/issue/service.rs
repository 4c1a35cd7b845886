//! Join and renew: from an attested identity and a certificate request to an SVID.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use weft_ca::Issued;
use weft_ca::audit::Event;
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

fn decode(csr: &str) -> Result<Vec<u8>, Reject> {
    STANDARD.decode(csr).map_err(|error| {
        Reject::bad_request(
            "bad_csr",
            format!("the certificate request is not base64: {error}"),
        )
    })
}

fn response(ca: &CaService, issued: &Issued) -> JoinResponse {
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
