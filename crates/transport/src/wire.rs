//! What carries a connection: QUIC, or TCP where UDP does not pass.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::VarInt;

use crate::lifetime::EndReason;
use crate::tcp::{self, TcpWire};
use crate::{DialError, dial};

/// H3_NO_ERROR: a connection that ends as it should (RFC 9114 §8.1).
pub(crate) const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// HTTP/3 over QUIC.
    Quic,
    /// HTTP/2 over TLS over TCP: where UDP is blocked or broken.
    Tcp,
}

impl Carrier {
    /// A stable label, for metrics and reports.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Quic => "HTTP/3 over QUIC",
            Self::Tcp => "HTTP/2 over TCP",
        })
    }
}

/// One connection of either kind.
#[derive(Clone, Debug)]
pub(crate) enum Wire {
    Quic(quinn::Connection),
    Tcp(Arc<TcpWire>),
}

impl Wire {
    /// Lets the peer have so many requests under way. HTTP/2 says it once, in its settings.
    pub(crate) fn promise(&self, requests: u32) {
        if let Self::Quic(quic) = self {
            quic.set_max_concurrent_bi_streams(requests.into());
        }
    }

    pub(crate) fn carrier(&self) -> Carrier {
        match self {
            Self::Quic(_) => Carrier::Quic,
            Self::Tcp(_) => Carrier::Tcp,
        }
    }

    /// QUIC's, which has a path to look at.
    pub(crate) fn quic(&self) -> Option<&quinn::Connection> {
        match self {
            Self::Quic(quic) => Some(quic),
            Self::Tcp(_) => None,
        }
    }

    pub(crate) fn remote(&self) -> SocketAddr {
        match self {
            Self::Quic(quic) => quic.remote_address(),
            Self::Tcp(wire) => wire.remote(),
        }
    }

    pub(crate) fn rtt(&self) -> Duration {
        match self {
            Self::Quic(quic) => quic.rtt(),
            Self::Tcp(wire) => wire.rtt(),
        }
    }

    /// Ends it now; nothing if it has ended: why it did must not be forgotten.
    pub(crate) fn close(&self, reason: EndReason) {
        match self {
            Self::Quic(quic) if quic.close_reason().is_none() => {
                quic.close(NO_ERROR, reason.to_string().as_bytes());
            }
            Self::Tcp(wire) if !wire.is_closed() => wire.close(&reason.to_string()),
            Self::Quic(_) | Self::Tcp(_) => {}
        }
    }

    /// Completes when it has ended.
    pub(crate) async fn closed(&self) {
        match self {
            Self::Quic(quic) => drop(quic.closed().await),
            Self::Tcp(wire) => wire.closed().await,
        }
    }

    /// Set when the peer refused our certificate, of which QUIC hears only after the handshake.
    pub(crate) fn rejection(&self) -> Option<DialError> {
        match self {
            Self::Quic(quic) => dial::rejection(self.remote(), &quic.close_reason()?),
            Self::Tcp(wire) => tcp::rejection(wire),
        }
    }

    /// Whether it ended because nothing arrived any more.
    pub(crate) fn fell_silent(&self) -> bool {
        let Self::Quic(quic) = self else { return false };
        matches!(quic.close_reason(), Some(quinn::ConnectionError::TimedOut))
    }
}
