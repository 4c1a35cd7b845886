//! One handshake as the dialling side, and what its failure means.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::{ConnectError, ConnectionClose, ConnectionError, TransportErrorCode};
use tokio::time::timeout;
use weft_certs::tls::{self, Failure};
use weft_certs::{CertificateDer, SpiffeId};

use crate::DialError;

/// QUIC error codes of TLS alerts (RFC 9001 §4.8): 0x100 and the alert.
const CRYPTO_ERRORS: std::ops::RangeInclusive<u64> = 0x100..=0x1ff;

/// Waits for the handshake of a dial to end.
pub(crate) async fn connect(
    endpoint: &quinn::Endpoint,
    client: quinn::ClientConfig,
    addr: SocketAddr,
    first_expected: &SpiffeId,
    failure: &Failure,
    patience: Duration,
) -> Result<quinn::Connection, DialError> {
    let name = tls::server_name(first_expected);
    let connecting = endpoint
        .connect_with(client, addr, &name.to_str())
        .map_err(|error| explain_start(addr, &error))?;
    match timeout(patience, connecting).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(explain(addr, error, failure, patience)),
        Err(_) => Err(DialError::Timeout {
            addr,
            after: patience,
        }),
    }
}

fn explain_start(addr: SocketAddr, error: &ConnectError) -> DialError {
    match error {
        ConnectError::EndpointStopping => DialError::ShuttingDown,
        other => DialError::Failed {
            addr,
            cause: other.to_string(),
        },
    }
}

fn explain(
    addr: SocketAddr,
    error: ConnectionError,
    failure: &Failure,
    patience: Duration,
) -> DialError {
    if let Some(source) = failure.get() {
        return DialError::Unverified {
            addr,
            source: source.clone(),
        };
    }
    match error {
        ConnectionError::TimedOut => DialError::Timeout {
            addr,
            after: patience,
        },
        error if is_about_key_exchange(&error) => DialError::KeyExchange { addr },
        ConnectionError::LocallyClosed => DialError::ShuttingDown,
        ConnectionError::ConnectionClosed(close)
            if close.error_code == TransportErrorCode::CONNECTION_REFUSED =>
        {
            DialError::Busy { addr }
        }
        other => rejection(addr, &other).unwrap_or_else(|| DialError::Failed {
            addr,
            cause: other.to_string(),
        }),
    }
}

/// Whether a connection ended because the peer refused our certificate. In TLS 1.3 that comes after the
/// dialling side's handshake is done, as the first thing that the peer says (RFC 8446 §4.4.2.4): nothing
/// that was sent on the connection has been looked at.
pub(crate) fn rejection(addr: SocketAddr, error: &ConnectionError) -> Option<DialError> {
    let ConnectionError::ConnectionClosed(close) = error else {
        return None;
    };
    let alert = alert_of(close)?;
    let reason = tls::alert_reason(alert).unwrap_or("other");
    let said = String::from_utf8_lossy(&close.reason);
    let cause = format!(
        "{} (TLS alert {alert}: {})",
        reason.replace('_', " "),
        shown(&said)
    );
    Some(DialError::RejectedByPeer {
        addr,
        reason,
        cause,
    })
}

fn alert_of(close: &ConnectionClose) -> Option<u8> {
    let code = u64::from(close.error_code);
    CRYPTO_ERRORS.contains(&code).then_some((code & 0xff) as u8)
}

/// What the peer said about our certificate, when a handshake ended with its alert.
pub(crate) fn peer_alert(error: &ConnectionError) -> Option<String> {
    let ConnectionError::ConnectionClosed(close) = error else {
        return None;
    };
    let alert = alert_of(close)?;
    let reason = tls::alert_reason(alert)
        .unwrap_or("other")
        .replace('_', " ");
    Some(format!("{reason} (TLS alert {alert})"))
}

/// Whether the two sides have no key exchange in common (RFC 8446 §4.1.1: alert 40, which is about nothing else
/// here, since the ciphers and signature algorithms of TLS 1.3 are the same everywhere).
pub(crate) fn is_about_key_exchange(error: &ConnectionError) -> bool {
    const HANDSHAKE_FAILURE: u8 = 40;
    let peer = match error {
        ConnectionError::ConnectionClosed(close) => alert_of(close),
        _ => None,
    };
    peer.or_else(|| own_alert(error)) == Some(HANDSHAKE_FAILURE)
}

/// The alert that our own TLS stack ended a handshake with.
pub(crate) fn own_alert(error: &ConnectionError) -> Option<u8> {
    let ConnectionError::TransportError(error) = error else {
        return None;
    };
    let code = u64::from(error.code);
    CRYPTO_ERRORS.contains(&code).then_some((code & 0xff) as u8)
}

/// Text from a peer goes into logs: bounded, and without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// The chain that a peer presented, leaf first; empty if none.
pub(crate) fn peer_chain(connection: &quinn::Connection) -> Arc<[CertificateDer<'static>]> {
    connection
        .peer_identity()
        .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
        .map(|chain| Arc::from(*chain))
        .unwrap_or_default()
}
