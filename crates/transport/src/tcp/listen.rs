//! The accepting side: who is let in over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::PeerIncompatible;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use weft_certs::CertificateDer;
use weft_certs::tls::{self, ClientAuth, Failure};
use weft_env::{Listener, PeerAddr, Stream};

use super::dial::alert_in;
use super::wire::{Counted, TcpWire};
use super::{ALPN, server};
use crate::core::Core;
use crate::error::NO_KEY_EXCHANGE;
use crate::lifetime::Terms;
use crate::registry::{Flow, NewLink};
use crate::relay::Turn;
use crate::session::NO_COMMON_KEY_EXCHANGE;
use crate::steer::Wheel;
use crate::wire::Wire;
use crate::{Direction, Handler, Relay};

/// After a failed accept, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(50);

/// Takes connections until the endpoint closes, or another process has taken the listener over.
pub(crate) async fn accept(core: Arc<Core>, listener: Arc<Listener>, handler: Arc<dyn Handler>) {
    let mut turn = core.config.relay.as_ref().map(Relay::turn);
    loop {
        let accepted = tokio::select! {
            biased;
            () = core.closing.cancelled() => return,
            () = core.tasks.token().cancelled_owned() => return,
            accepted = in_turn(turn.as_mut(), &listener) => match accepted {
                Some(accepted) => accepted,
                None => return,
            },
        };
        let (stream, from) = match accepted {
            Ok((stream, PeerAddr::Tcp(from))) => (stream, from),
            Ok((_, PeerAddr::Unix)) => continue,
            Err(error) => {
                tracing::warn!(%error, "the mesh port takes no TCP connection");
                sleep(PAUSE).await;
                continue;
            }
        };
        match core.admit() {
            Ok(place) => {
                let work = handshake(core.clone(), handler.clone(), stream, from, place);
                core.tasks.spawn(work);
            }
            Err(full) => {
                core.refusals.record(Direction::Inbound, from, "busy", full);
                stream.reset();
            }
        }
    }
}

/// The next connection, while this process is the one to take it; `None` once another one is.
async fn in_turn(
    turn: Option<&mut Turn>,
    listener: &Listener,
) -> Option<io::Result<(Stream, PeerAddr)>> {
    let Some(turn) = turn else {
        return Some(listener.accept().await);
    };
    loop {
        if !turn.comes().await {
            return None;
        }
        tokio::select! {
            biased;
            () = turn.changed() => {}
            accepted = listener.accept() => return Some(accepted),
        }
    }
}

async fn handshake(
    core: Arc<Core>,
    handler: Arc<dyn Handler>,
    stream: Stream,
    from: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    // Read before the handshake: an identity that changes during it makes the connection old at once.
    let before = core.identity.current();
    let patience = core.config.limits.handshake_timeout;
    let refuse = |reason, detail| {
        core.refusals
            .record(Direction::Inbound, from, reason, detail)
    };
    let local = stream.local_addr();
    let stream = match timeout(patience, secure(&core, stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err((reason, detail))) => return refuse(reason, detail),
        Err(_) => {
            let detail = format!("the handshake was not done within {patience:?}");
            return refuse("timeout", detail);
        }
    };
    let chain = peer_chain(&stream);
    let peer = match tls::peer_identity(&chain) {
        Ok(peer) => Some(peer),
        Err(_) if chain.is_empty() && core.config.client_auth == ClientAuth::Optional => None,
        // rustls and the verifier let no such peer through; a connection without an identity must not come to be
        // even so.
        Err(error) => return refuse(error.reason(), error.to_string()),
    };
    let wire = TcpWire::new(from, local);
    wire.agreed(stream.get_ref().1);
    let stream = Counted::new(stream, Arc::clone(&wire));
    let Ok(http) = timeout(patience, server::handshake(&core, stream)).await else {
        let detail = format!("no HTTP/2 within {patience:?}");
        return refuse("timeout", detail);
    };
    let http = match http {
        Ok(http) => http,
        Err(error) => return refuse("other", error.to_string()),
    };
    let terms = Terms {
        direction: Direction::Inbound,
        opened: core.env.wall(),
        generation: before.generation,
        own_not_after: Some(before.svid.not_after()),
        peer_not_after: peer.as_ref().map(|peer| peer.not_after),
    };
    let counted = Arc::clone(&wire);
    let profile = core.profile(peer.as_ref().map(|peer| &peer.id)).clone();
    let new = NewLink {
        wire: Wire::Tcp(Arc::clone(&wire)),
        peer,
        chain,
        terms,
        active: Box::new(move || counted.active()),
        flow: Box::new(Flow::default),
        wheel: Wheel::default(),
        profile,
    };
    let link = core.enter(new, &before);
    drop(place);
    let reason = server::attend(&core, &link, &wire, handler, http).await;
    tracing::debug!(connection = link.id, peer = %from, reason, "connection ended");
    wire.ended(reason);
    core.registry.remove(&link);
}

async fn secure(core: &Core, stream: Stream) -> Result<TlsStream<Stream>, (&'static str, String)> {
    let failure = Failure::default();
    let acceptor = TlsAcceptor::from(Arc::new(core.quic.tls_over_tcp(failure.clone())));
    let stream = acceptor.accept(stream).await.map_err(|error| {
        if let Some(cause) = failure.get() {
            return (cause.reason(), cause.to_string());
        }
        let rustls = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        if matches!(rustls, Some(rustls::Error::NoCertificatesPresented)) {
            let detail = "the peer presented no certificate".to_owned();
            return ("no_certificate", detail);
        }
        let no_group = PeerIncompatible::NoKxGroupsInCommon;
        if rustls == Some(&rustls::Error::PeerIncompatible(no_group)) {
            return (NO_KEY_EXCHANGE, NO_COMMON_KEY_EXCHANGE.to_owned());
        }
        match alert_in(&error) {
            Some(alert) => (
                "rejected_by_peer",
                format!("the peer refused our certificate: {alert:?}"),
            ),
            None => ("other", error.to_string()),
        }
    })?;
    if stream.get_ref().1.alpn_protocol() != Some(ALPN) {
        return Err(("other", "the peer does not speak HTTP/2".to_owned()));
    }
    Ok(stream)
}

fn peer_chain(stream: &TlsStream<Stream>) -> Arc<[CertificateDer<'static>]> {
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    chain.iter().map(|part| part.clone().into_owned()).collect()
}
