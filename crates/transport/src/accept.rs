//! The accepting side: who is let in, and what becomes of its requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use quinn::VarInt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use weft_certs::PeerIdentity;
use weft_certs::tls::{self, ClientAuth, Failure};
use weft_env::BoxFuture;
use weft_h3::{Accept, Aside, Driver, Shutdown};

use crate::core::Core;
use crate::error::NO_KEY_EXCHANGE;
use crate::lifetime::{EndReason, Terms};
use crate::places::Places;
use crate::registry::{Flow, Link, NewLink};
use crate::session::NO_COMMON_KEY_EXCHANGE;
use crate::steer::Wheel;
use crate::wire::Wire;
use crate::{Direction, Negotiated, Profile, RecvStream, SendStream, dial, paths, renewal};

/// Answers the requests that arrive at an endpoint.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, from its header to its end. Called in a task of the request's own; a request
    /// that is dropped unanswered is reset, and its neighbours do not notice.
    fn handle(&self, request: ServerRequest) -> BoxFuture<'_, ()>;
}

/// A request that arrived.
#[derive(Debug)]
pub struct ServerRequest {
    /// Who sent it, as verified; `None` only at a control node, from someone who joins.
    pub peer: Option<PeerIdentity>,
    /// The address that it came from, now.
    pub remote: SocketAddr,
    /// What the handshake of its connection agreed on.
    pub negotiated: Negotiated,
    /// The address of this node that was dialled, where it is known: over TCP. HBONE names an application's port by it.
    pub local: Option<SocketAddr>,
    /// Its header.
    pub request: Request<()>,
    /// Takes the response.
    pub send: SendStream,
    /// Brings the rest of the request.
    pub recv: RecvStream,
}

/// Time for the peer to act on a GOAWAY, beyond the round trip: a busy process reads it late, and each request
/// that it sends meanwhile would have to be sent again.
const HEARD: Duration = Duration::from_millis(50);
/// Waits for the last words of an answer to arrive: a close drops what is still under way. A peer that
/// follows GOAWAY closes first; this is for one that does not.
const LINGER: Duration = Duration::from_secs(1);
/// The same on long paths, in round trips: two losses in a row.
const LINGER_ROUND_TRIPS: u32 = 6;

/// Takes connections until the endpoint closes.
pub(crate) async fn accept(core: Arc<Core>, handler: Arc<dyn Handler>) {
    loop {
        let incoming = tokio::select! {
            biased;
            () = core.closing.cancelled() => return,
            () = core.tasks.token().cancelled_owned() => return,
            incoming = core.endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        match admit(&core, &incoming) {
            Admission::Handshake(place) => {
                let handshake = handshake(core.clone(), handler.clone(), incoming, place);
                core.tasks.spawn(handshake);
            }
            // It fails only for a client that has proven its address already, which `admit` rules out.
            Admission::ProveAddress => drop(incoming.retry()),
            Admission::Full(what) => {
                core.refusals
                    .record(Direction::Inbound, incoming.remote_address(), "busy", what);
                incoming.refuse();
            }
        }
    }
}

enum Admission {
    Handshake(OwnedSemaphorePermit),
    ProveAddress,
    Full(String),
}

fn admit(core: &Core, incoming: &quinn::Incoming) -> Admission {
    let many = core.config.limits.max_handshakes / 2;
    if core.handshakes_under_way() >= many && incoming.may_retry() && !core.is_full() {
        return Admission::ProveAddress;
    }
    match core.admit() {
        Ok(place) => Admission::Handshake(place),
        Err(full) => Admission::Full(full),
    }
}

async fn handshake(
    core: Arc<Core>,
    handler: Arc<dyn Handler>,
    incoming: quinn::Incoming,
    place: OwnedSemaphorePermit,
) {
    let from = incoming.remote_address();
    // Read before the handshake: an identity that changes during it makes the connection old at once.
    let before = core.identity.current();
    let failure = Failure::default();
    let (quic, wheel) = match finish_handshake(&core, incoming, &failure).await {
        Ok(quic) => quic,
        Err((reason, detail)) => {
            return core
                .refusals
                .record(Direction::Inbound, from, reason, detail);
        }
    };
    let chain = dial::peer_chain(&quic);
    let peer = match tls::peer_identity(&chain) {
        Ok(peer) => Some(peer),
        Err(_) if chain.is_empty() && core.config.client_auth == ClientAuth::Optional => None,
        Err(error) => {
            // rustls and the verifier let no such peer through; a connection without an identity must not
            // come to be even so.
            quic.close(0_u32.into(), b"");
            return core.refusals.record(
                Direction::Inbound,
                from,
                error.reason(),
                error.to_string(),
            );
        }
    };
    let terms = Terms {
        direction: Direction::Inbound,
        opened: core.env.wall(),
        generation: before.generation,
        own_not_after: Some(before.svid.not_after()),
        peer_not_after: peer.as_ref().map(|peer| peer.not_after),
    };
    let profile = core.profile(peer.as_ref().map(|peer| &peer.id)).clone();
    follow(&core, &quic, &wheel, &profile);
    // The window of a stream was agreed on before the peer was known.
    let h3 = core.h3(core.config.profile.stream_window, profile.connection_window);
    let (accept, driver) = weft_h3::server(quic.clone(), h3);
    let (driver, aside) = driver
        .with_lending(core.lending.clone())
        .with_aside(renewal::STREAM_TYPE);
    let (shutdown, streams) = (accept.shutdown(), accept.shutdown());
    let active = Box::new(move || shutdown.active());
    let flow = Box::new(move || Flow {
        blocked: streams.blocked(),
        standing: streams.standing(),
        takes_parity: streams.peer_takes_parity(),
    });
    let link = core.enter(
        NewLink {
            wire: Wire::Quic(quic),
            peer,
            chain,
            terms,
            active,
            flow,
            wheel,
            profile,
        },
        &before,
    );
    drop(place);
    attend(&core, &link, handler, accept, (driver, aside)).await;
    core.registry.remove(&link);
}

/// Lets a connection follow a profile that is not the one that it began with.
fn follow(core: &Core, quic: &quinn::Connection, wheel: &Wheel, profile: &Profile) {
    paths::begin(core, profile.copying, quic.remote_address());
    if *profile != core.config.profile {
        wheel.choose(profile.congestion);
        quic.set_receive_window(VarInt::from_u32(profile.connection_window));
        quic.set_send_window(profile.send_window);
    }
}

async fn finish_handshake(
    core: &Core,
    incoming: quinn::Incoming,
    failure: &Failure,
) -> Result<(quinn::Connection, Wheel), (&'static str, String)> {
    let (server, wheel) = core
        .quic
        .accept(incoming.remote_address(), failure.clone())
        .map_err(|error| ("other", error.to_string()))?;
    let connecting = incoming
        .accept_with(Arc::new(server))
        // The client's first message can be enough to fail by.
        .map_err(|error| explain(&error, failure))?;
    let patience = core.config.limits.handshake_timeout;
    match timeout(patience, connecting).await {
        Ok(Ok(quic)) => Ok((quic, wheel)),
        Ok(Err(error)) => Err(explain(&error, failure)),
        Err(_) => Err((
            "timeout",
            format!("the handshake was not done within {patience:?}"),
        )),
    }
}

fn explain(error: &quinn::ConnectionError, failure: &Failure) -> (&'static str, String) {
    if let Some(cause) = failure.get() {
        return (cause.reason(), cause.to_string());
    }
    if dial::is_about_key_exchange(error) {
        return (NO_KEY_EXCHANGE, NO_COMMON_KEY_EXCHANGE.to_owned());
    }
    match dial::own_alert(error).and_then(tls::alert_reason) {
        Some("no_certificate") => (
            "no_certificate",
            "the peer presented no certificate".to_owned(),
        ),
        Some(reason) => (reason, error.to_string()),
        None => match dial::peer_alert(error) {
            Some(reason) => (
                "rejected_by_peer",
                format!("the peer refused our certificate: {reason}"),
            ),
            None => ("other", error.to_string()),
        },
    }
}

/// Serves a connection until it ends.
async fn attend(
    core: &Arc<Core>,
    link: &Arc<Link>,
    handler: Arc<dyn Handler>,
    mut accept: Accept,
    (driver, aside): (Driver, Aside),
) {
    let ending = end_in_peace(link, accept.shutdown());
    let mut places = Places::new(core.config.limits.max_requests);
    let serving = async {
        // The error is the connection's end, which the driver tells.
        while let Ok(Some(pending)) = accept.accept().await {
            if let Some(promise) = places.grow(accept.active()) {
                link.wire.promise(promise);
            }
            let (link, handler) = (link.clone(), handler.clone());
            let patience = core.config.limits.header_timeout;
            core.tasks.spawn(answer(link, handler, pending, patience));
        }
        std::future::pending::<()>().await;
    };
    let token = core.tasks.token();
    tokio::select! {
        biased;
        error = driver.run() => {
            tracing::debug!(connection = link.id, peer = %link.remote(), %error, "connection ended");
        }
        () = token.cancelled() => link.close(EndReason::ShuttingDown),
        () = serving => {}
        () = ending => {}
        () = renewal::keep(core, link, Some(aside)) => {}
    }
}

/// Once the connection is retired: GOAWAY in two steps (RFC 9114 §5.2), then what is under way ends, then the
/// peer has time to take the last of it.
async fn end_in_peace(link: &Link, shutdown: Shutdown) {
    link.retired.cancelled().await;
    shutdown.begin();
    // Requests that the peer sent before it heard of it are still taken.
    sleep(link.wire.rtt() + HEARD).await;
    shutdown.finish();
    shutdown.drained().await;
    let linger = LINGER.max(link.wire.rtt() * LINGER_ROUND_TRIPS);
    if timeout(linger, link.wire.closed()).await.is_err() {
        link.close_retired();
    }
    std::future::pending::<()>().await;
}

async fn answer(
    link: Arc<Link>,
    handler: Arc<dyn Handler>,
    pending: weft_h3::Pending,
    patience: Duration,
) {
    // One that takes too long is dropped, and with that rejected as unprocessed.
    let Ok(Ok((request, send, recv))) = timeout(patience, pending.head()).await else {
        return;
    };
    link.load.count();
    let peer = link.peer_now();
    let remote = link.remote();
    handler
        .handle(ServerRequest {
            peer,
            remote,
            negotiated: link.negotiated,
            local: None,
            request,
            send: send.into(),
            recv: recv.into(),
        })
        .await;
}
