//! One handshake as the dialling side: TCP, TLS, and the first sign that the peer has let us in.

use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use h2::PingPong;
use h2::client::{Builder, Connection, SendRequest};
use rustls::AlertDescription;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_certs::tls::{self, Failure};
use weft_certs::{CertificateDer, SpiffeId};
use weft_env::{Env, Stream};

use super::client::Requests;
use super::wire::{Counted, TcpWire};
use super::{ALPN, keep_alive};
use crate::{DialError, Limits, Liveness, Profile};

type Http2 = Connection<Counted<TlsStream<Stream>>, Bytes>;

/// A connection whose peer is verified, and has verified us.
pub(crate) struct Dialled {
    pub(crate) wire: Arc<TcpWire>,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) requests: Requests,
    pub(crate) driver: Driver,
}

/// Moves a connection's bytes; its owner runs it.
pub(crate) struct Driver {
    connection: Http2,
    sender: SendRequest<Bytes>,
    pings: Option<PingPong>,
    wire: Arc<TcpWire>,
}

/// Dials. `failure` is the slot of `tls`.
pub(crate) async fn dial(
    env: &Env,
    tls: rustls::ClientConfig,
    addr: SocketAddr,
    first_expected: &SpiffeId,
    failure: &Failure,
    profile: &Profile,
    limits: &Limits,
) -> Result<Dialled, DialError> {
    let wire = TcpWire::new(addr, None);
    let patience = limits.dial_timeout;
    let dialled = handshake(env, tls, first_expected, &wire, profile, limits);
    match timeout(patience, dialled).await {
        Ok(Ok(dialled)) => Ok(dialled),
        Ok(Err(cause)) => Err(explain(&wire, cause, failure)),
        Err(_) => Err(DialError::Failed {
            addr,
            cause: format!("no answer over TCP within {patience:?}"),
        }),
    }
}

async fn handshake(
    env: &Env,
    tls: rustls::ClientConfig,
    first_expected: &SpiffeId,
    wire: &Arc<TcpWire>,
    profile: &Profile,
    limits: &Limits,
) -> Result<Dialled, String> {
    let stream = env.connect(wire.remote()).await.map_err(said)?;
    let connector = TlsConnector::from(Arc::new(tls));
    let name = tls::server_name(first_expected);
    let stream = connector.connect(name, stream).await.map_err(|error| {
        wire.broke(&error);
        said(error)
    })?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN) {
        return Err("the peer does not speak HTTP/2".to_owned());
    }
    wire.agreed(session);
    let chain = session.peer_certificates().unwrap_or_default();
    let chain = chain.iter().map(|part| part.clone().into_owned()).collect();
    let stream = Counted::new(stream, Arc::clone(wire));
    let (sender, mut connection) = Builder::new()
        .initial_window_size(profile.stream_window)
        .initial_connection_window_size(profile.connection_window)
        .max_header_list_size(u32::try_from(limits.max_header_bytes).unwrap_or(u32::MAX))
        .initial_max_send_streams(limits.max_requests as usize)
        .enable_push(false)
        .handshake::<_, Bytes>(stream)
        .await
        .map_err(said)?;
    let pings = connection.ping_pong();
    first_word(&mut connection, wire).await?;
    Ok(Dialled {
        wire: Arc::clone(wire),
        chain,
        requests: Requests::new(sender.clone(), Arc::clone(wire)),
        driver: Driver {
            connection,
            sender,
            pings,
            wire: Arc::clone(wire),
        },
    })
}

/// Waits for the peer's SETTINGS: it sends them once it has verified our certificate, of which TLS 1.3 tells us
/// nothing else (RFC 8446 §4.4.2.4).
async fn first_word(connection: &mut Http2, wire: &TcpWire) -> Result<(), String> {
    poll_fn(|cx| match Pin::new(&mut *connection).poll(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err("the peer closed the connection".to_owned())),
        Poll::Ready(Err(error)) => Poll::Ready(Err(said(error))),
        Poll::Pending if wire.received() > 0 => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn explain(wire: &TcpWire, cause: String, failure: &Failure) -> DialError {
    let addr = wire.remote();
    if let Some(source) = failure.get() {
        return DialError::Unverified {
            addr,
            source: source.clone(),
        };
    }
    match rejection(wire) {
        Some(error) => error,
        None if wire.alert() == Some(AlertDescription::HandshakeFailure) => {
            DialError::KeyExchange { addr }
        }
        None => DialError::Failed {
            addr,
            cause: format!("over TCP: {cause}"),
        },
    }
}

/// Whether the peer ended the connection with an alert about our certificate.
pub(crate) fn rejection(wire: &TcpWire) -> Option<DialError> {
    let alert = wire.alert()?;
    let number = u8::from(alert);
    let reason = tls::alert_reason(number)?;
    Some(DialError::RejectedByPeer {
        addr: wire.remote(),
        reason,
        cause: format!("{} (TLS alert {number})", reason.replace('_', " ")),
    })
}

/// The alert in an error of tokio-rustls.
pub(super) fn alert_in(error: &io::Error) -> Option<AlertDescription> {
    match error.get_ref()?.downcast_ref::<rustls::Error>()? {
        rustls::Error::AlertReceived(alert) => Some(*alert),
        _ => None,
    }
}

impl Driver {
    /// Drives the connection to its end, and gives the reason.
    pub(crate) async fn run(self, liveness: Liveness) -> String {
        let Self {
            mut connection,
            mut sender,
            pings,
            wire,
        } = self;
        let driving = poll_fn(|cx| {
            let done = Pin::new(&mut connection).poll(cx);
            // There is no other way to hear of a GOAWAY while requests are under way.
            if !wire.is_going_away() && matches!(sender.poll_ready(cx), Poll::Ready(Err(_))) {
                wire.goes_away();
            }
            done
        });
        let alive = async {
            match pings {
                Some(pings) => keep_alive::watch(pings, &wire, liveness).await,
                None => std::future::pending().await,
            }
        };
        let reason = tokio::select! {
            biased;
            () = wire.cut() => "closed here".to_owned(),
            done = driving => match done {
                Ok(()) => "the peer closed the connection".to_owned(),
                Err(error) => error.to_string(),
            },
            dead = alive => dead,
        };
        wire.ended(reason.clone());
        reason
    }
}
