//! Join and renew: from an attested identity and a certificate request to an SVID.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use weft_ca::Issued;
use weft_certs::SpiffeId;
use weft_wire::{JoinRequest, JoinResponse, RenewRequest, RenewResponse};

use super::{CaService, tokens};
use crate::problem::Reject;
use crate::store::{Store, Txn};

/// A first SVID for whoever holds a token. The token is used up only if there is something to give.
pub(crate) async fn join(
    ca: &CaService,
    store: &dyn Store,
    request: &JoinRequest,
    remote: SocketAddr,
    now: SystemTime,
) -> Result<JoinResponse, Reject> {
    let token = tokens::check(store, &request.token, remote, now).await?;
    let (csr, id) = (decode(&request.csr)?, token.identity().clone());
    let (txn, used) = tokens::redeem(token);
    let by = remote.to_string();
    let issued = ca.issue(&csr, &id, &by, txn).await;
    let issued = issued.map_err(|reject| tokens::lost_race(reject, used))?;
    tracing::info!(id = %issued.id, %remote, "a sidecar joined");
    Ok(response(ca, &issued))
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
    let issued = ca.issue(&csr, attested, &by, Txn::new()).await?;
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
