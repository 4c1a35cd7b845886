//! The connection of someone who has no identity yet.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use weft_certs::tls::{self, Failure};
use weft_env::{Env, Tasks};

use crate::lifetime::Terms;
use crate::registry::{NewLink, Registry};
use crate::{Connection, DialError, Direction, JoinConfig, Limits, Profile, dial, quic};

/// Dials a control node without an SVID: the node must show a root with the pinned key and be the expected one
/// under it. Only joining can be asked for on this connection. It is closed when the last clone of it goes.
///
/// # Errors
/// Why the node could not be reached, or which rule it breaks.
pub async fn join_connection(
    env: &Env,
    tasks: &Tasks,
    addr: SocketAddr,
    join: &JoinConfig,
) -> Result<Connection, DialError> {
    let failed = |cause: String| DialError::Failed { addr, cause };
    let failure = Failure::default();
    let (profile, limits) = (Profile::auto(), Limits::default());
    let (client, wheel) = quic::join(env, &profile, &limits, addr, join, failure.clone())
        .map_err(|error| failed(error.to_string()))?;
    let endpoint = client_endpoint(env, &profile, addr).map_err(failed)?;
    let quic = dial::connect(
        &endpoint,
        client,
        addr,
        &join.expected,
        &failure,
        limits.dial_timeout,
    )
    .await?;
    let chain = dial::peer_chain(&quic);
    let peer =
        tls::peer_identity(&chain).map_err(|source| DialError::Unverified { addr, source })?;
    let terms = Terms {
        direction: Direction::Outbound,
        opened: env.wall(),
        generation: 0,
        own_not_after: None,
        peer_not_after: Some(peer.not_after),
    };
    let (requests, driver) = weft_h3::client(quic.clone(), weft_h3::Config::default());
    let (counted, waited) = (requests.clone(), requests.clone());
    let active = Box::new(move || counted.active());
    let blocked = Box::new(move || waited.blocked());
    // Verified by pin: there is no bundle yet by which to verify it again.
    let new = NewLink {
        quic,
        peer: Some(peer),
        chain: Arc::default(),
        terms,
        active,
        blocked,
        wheel,
        profile,
    };
    let link = Registry::default().add(new, false);
    let (ended, token) = (link.clone(), tasks.token());
    tasks.spawn(async move {
        // The socket lives as long as the connection.
        let _endpoint = endpoint;
        tokio::select! {
            biased;
            error = driver.run() => tracing::debug!(%error, "the connection for joining ended"),
            () = token.cancelled() => {}
        }
        ended.retire(crate::EndReason::Lost);
    });
    Ok(Connection::orphan(link, requests))
}

fn client_endpoint(
    env: &Env,
    profile: &Profile,
    peer: SocketAddr,
) -> Result<quinn::Endpoint, String> {
    let any = if peer.is_ipv6() {
        Ipv6Addr::UNSPECIFIED.into()
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let config = quic::endpoint(env, profile, None).map_err(|error| error.to_string())?;
    let socket = env
        .bind_udp(SocketAddr::new(any, 0))
        .map_err(|error| error.to_string())?;
    quinn::Endpoint::new_with_abstract_socket(config, None, socket, env.quinn_runtime())
        .map_err(|error| error.to_string())
}
