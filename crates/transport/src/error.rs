//! What can go wrong, by who can do something about it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use weft_certs::VerifyError;

use crate::StreamError;

/// The label of a handshake that failed over the key exchange.
pub(crate) const NO_KEY_EXCHANGE: &str = "no_common_key_exchange";

/// An endpoint could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TransportError {
    /// The UDP or the TCP socket could not be had; the cause names which, and the address.
    #[error("the mesh port cannot be opened: {0}; choose another address, or stop what uses it")]
    Bind(#[source] std::io::Error),
    /// The settings cannot be used.
    #[error("the transport settings cannot be used: {0}")]
    Config(String),
}

/// A connection could not be had.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum DialError {
    /// Nothing answered.
    #[error(
        "no answer from {addr} within {after:?}: is weft running there, and is UDP let through?"
    )]
    Timeout {
        /// Who was dialled.
        addr: SocketAddr,
        /// How long it was waited for.
        after: Duration,
    },
    /// There is no way, over QUIC or over TCP.
    #[error("no way to {addr}: over QUIC {}; over TCP {}", .quic.brief(), .tcp.brief())]
    Unreachable {
        /// Who was dialled.
        addr: SocketAddr,
        /// What came of QUIC.
        quic: Box<DialError>,
        /// What came of TCP.
        tcp: Box<DialError>,
    },
    /// The peer's certificate was refused by us.
    #[error("the peer at {addr} was refused ({}): {source}", .source.reason())]
    Unverified {
        /// Who was dialled.
        addr: SocketAddr,
        /// The rule that its certificate breaks.
        source: VerifyError,
    },
    /// Our certificate was refused by the peer.
    #[error("the peer at {addr} refused our certificate: {cause}")]
    RejectedByPeer {
        /// Who was dialled.
        addr: SocketAddr,
        /// Label of its reason, as far as its alert tells.
        reason: &'static str,
        /// What it said.
        cause: String,
    },
    /// One side insists on post-quantum key exchange, the other has none.
    #[error(
        "the peer at {addr} was not agreed with on a key exchange: one side requires X25519MLKEM768 (--key-exchange hybrid) and the other does not offer it"
    )]
    KeyExchange {
        /// Who was dialled.
        addr: SocketAddr,
    },
    /// The peer takes no connections now: it is full or going down.
    #[error("the peer at {addr} takes no new connections: it is full or going down")]
    Busy {
        /// Who was dialled.
        addr: SocketAddr,
    },
    /// Any other end of the handshake.
    #[error("the connection to {addr} failed: {cause}")]
    Failed {
        /// Who was dialled.
        addr: SocketAddr,
        /// What the transport said.
        cause: String,
    },
    /// An earlier dial failed a moment ago, and it is too early to try again.
    #[error("{last} (tried a moment ago, next try in {again_in:?})")]
    Backoff {
        /// Why the earlier dial failed.
        last: Arc<DialError>,
        /// When a dial is due again.
        again_in: Duration,
    },
    /// The set of expected identities is empty.
    #[error("nobody is expected at {addr}: the target service has no identity")]
    NobodyExpected {
        /// Who would have been dialled.
        addr: SocketAddr,
    },
    /// The endpoint is going down.
    #[error("this node is shutting down")]
    ShuttingDown,
}

impl DialError {
    /// A stable label for counters: that of the verifier for a refused certificate.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Timeout { .. } => "timeout",
            Self::Unreachable { quic, .. } => quic.reason(),
            Self::Unverified { source, .. } => source.reason(),
            Self::RejectedByPeer { .. } => "rejected_by_peer",
            Self::KeyExchange { .. } => NO_KEY_EXCHANGE,
            Self::Busy { .. } => "busy",
            Self::Failed { .. } => "other",
            Self::Backoff { last, .. } => last.reason(),
            Self::NobodyExpected { .. } => "nobody_expected",
            Self::ShuttingDown => "shutting_down",
        }
    }

    /// The cause without the address, for sentences that name it already.
    fn brief(&self) -> String {
        match self {
            Self::Timeout { after, .. } => format!("no answer within {after:?}"),
            Self::Failed { addr, cause } => cause
                .trim_start_matches("over TCP: ")
                .trim_start_matches(&format!("cannot connect to {addr}: "))
                .to_owned(),
            other => other.to_string(),
        }
    }

    /// Whether this is the memory of an earlier failure, and nothing was dialled for it.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        matches!(self, Self::Backoff { .. })
    }
}

/// A request did not get under way.
#[derive(Clone, Debug, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// There was no connection to send it on.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The connection takes no more requests: another one is due.
    #[error("the connection takes no more requests")]
    Retired,
    /// It failed on its stream, or with the connection.
    #[error(transparent)]
    Stream(StreamError),
}

impl RequestError {
    /// Nothing was sent, and another connection to the same target would do.
    pub(crate) fn was_not_sent(&self) -> bool {
        matches!(
            self,
            Self::Retired | Self::Stream(StreamError::Stream(weft_h3::Error::GoingAway))
        )
    }

    /// Whether the request was certainly not processed: sending it elsewhere cannot repeat it.
    #[must_use]
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::Dial(_) | Self::Retired => true,
            Self::Stream(error) => error.is_unprocessed(),
        }
    }
}
