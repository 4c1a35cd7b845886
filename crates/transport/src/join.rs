//! The connection of someone who has no identity yet.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::time::Instant;
use weft_certs::CertificateDer;
use weft_certs::tls::{self, Failure};
use weft_env::{Env, Tasks};

use crate::connection::Requests;
use crate::core::Driver;
use crate::fallback::Fallback;
use crate::lifetime::Terms;
use crate::race::{Won, race};
use crate::registry::{NewLink, Registry};
use crate::steer::Wheel;
use crate::wire::Wire;
use crate::{
    Connection, DialError, Direction, JoinConfig, Limits, Liveness, Profile, dial, quic, tcp,
};

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
    let raced = async {
        if !join.fallback {
            return quic(env, addr, join).await.map(Won::Quic);
        }
        let plan = Fallback::new(0).plan(addr, Instant::now());
        race(addr, plan, quic(env, addr, join), over_tcp(env, addr, join)).await
    };
    let Joining {
        wire,
        chain,
        requests,
        driver,
        wheel,
        socket,
    } = match raced.await? {
        Won::Quic(joining) => joining,
        Won::Tcp(joining) => {
            tracing::info!(control = %addr, "no answer over UDP: joining over TCP");
            joining
        }
    };
    let peer =
        tls::peer_identity(&chain).map_err(|source| DialError::Unverified { addr, source })?;
    let terms = Terms {
        direction: Direction::Outbound,
        opened: env.wall(),
        generation: 0,
        own_not_after: None,
        peer_not_after: Some(peer.not_after),
    };
    // Verified by pin: there is no bundle yet by which to verify it again.
    let new = NewLink {
        active: requests.counter(),
        wire,
        peer: Some(peer),
        chain: Arc::default(),
        terms,
        flow: requests.flow(),
        wheel,
        profile: Profile::auto(),
    };
    let link = Registry::default().add(new, false);
    let (ended, token) = (link.clone(), tasks.token());
    tasks.spawn(async move {
        // The socket lives as long as the connection.
        let _socket = socket;
        tokio::select! {
            biased;
            error = driver.run(Liveness::CONTROL) => {
                tracing::debug!(%error, "the connection for joining ended");
            }
            () = token.cancelled() => {}
        }
        ended.retire(crate::EndReason::Lost);
    });
    Ok(Connection::orphan(link, requests))
}

/// A handshake that is done.
struct Joining {
    wire: Wire,
    chain: Arc<[CertificateDer<'static>]>,
    requests: Requests,
    driver: Driver,
    wheel: Wheel,
    /// QUIC's own.
    socket: Option<quinn::Endpoint>,
}

async fn quic(env: &Env, addr: SocketAddr, join: &JoinConfig) -> Result<Joining, DialError> {
    let failed = |cause: String| DialError::Failed { addr, cause };
    let failure = Failure::default();
    let (profile, limits) = (Profile::auto(), Limits::default());
    let (client, wheel) = quic::join(env, &profile, addr, join, failure.clone())
        .map_err(|error| failed(error.to_string()))?;
    let socket = client_endpoint(env, &profile, addr).map_err(failed)?;
    let (expected, patience) = (&join.expected, limits.dial_timeout);
    let quic = dial::connect(&socket, client, addr, expected, &failure, patience).await?;
    let (requests, driver) = weft_h3::client(quic.clone(), weft_h3::Config::default());
    Ok(Joining {
        chain: dial::peer_chain(&quic),
        wire: Wire::Quic(quic),
        requests: Requests::Quic(requests),
        driver: Driver::Quic(driver),
        wheel,
        socket: Some(socket),
    })
}

async fn over_tcp(env: &Env, addr: SocketAddr, join: &JoinConfig) -> Result<Joining, DialError> {
    let failure = Failure::default();
    let (profile, limits) = (Profile::auto(), Limits::default());
    let expected = join.expected.clone();
    let tls = tls::join_config(
        join.pin,
        expected,
        &[tcp::ALPN],
        join.key_exchange,
        env.clock(),
        failure.clone(),
    );
    let tcp::Dialled {
        wire,
        chain,
        requests,
        driver,
    } = tcp::dial(env, tls, addr, &join.expected, &failure, &profile, &limits).await?;
    Ok(Joining {
        chain,
        wire: Wire::Tcp(wire),
        requests: Requests::Tcp(requests),
        driver: Driver::Tcp(Box::new(driver)),
        wheel: Wheel::default(),
        socket: None,
    })
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
    let config = quic::endpoint(env, profile, None, None).map_err(|error| error.to_string())?;
    let socket = env
        .bind_udp(SocketAddr::new(any, 0))
        .map_err(|error| error.to_string())?;
    quinn::Endpoint::new_with_abstract_socket(config, None, socket, env.quinn_runtime())
        .map_err(|error| error.to_string())
}
