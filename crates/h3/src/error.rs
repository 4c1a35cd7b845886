//! What can go wrong with a request or a connection.

use crate::Code;
use crate::core::outgoing::Unsendable;

/// Why a request, a response or a connection failed.
///
/// An error of a stream leaves the connection and its other streams as they were; [`Error::Protocol`] and
/// [`Error::ConnectionClosed`] are the end of the whole connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The peer gave its half of the stream up.
    #[error("the peer reset the stream with {code}")]
    PeerReset {
        /// Its reason.
        code: Code,
        /// The peer says that it did not process the request.
        unprocessed: bool,
    },
    /// The peer does not read our half of the stream any more. After `H3_NO_ERROR` its response is still
    /// worth reading (RFC 9114 §4.1).
    #[error("the peer stopped reading with {code}")]
    Stopped {
        /// Its reason.
        code: Code,
    },
    /// The peer's message breaks a rule; the stream was reset (RFC 9114 §4.1.2).
    #[error("the peer's message is malformed: {rule}")]
    Malformed {
        /// What the stream was reset with.
        code: Code,
        /// What is wrong.
        rule: &'static str,
    },
    /// The peer's header or trailers are larger than [`Config`](crate::Config) allows. A server has
    /// answered 431.
    #[error("the peer's header fields exceed {limit} bytes or {fields} fields")]
    TooLarge {
        /// Allowed size in bytes.
        limit: u64,
        /// Allowed number of fields.
        fields: usize,
    },
    /// Our own message was not sent: the peer would have called it malformed, or it came at the wrong
    /// time.
    #[error("the message cannot be sent: {rule}")]
    Unsendable {
        /// What is wrong.
        rule: &'static str,
    },
    /// There is nothing to read at this point: a mistake of the caller, the stream is as it was.
    #[error("the stream cannot be read: {rule}")]
    Unreadable {
        /// Why.
        rule: &'static str,
    },
    /// Our own header was not sent: the peer said that it takes no field section of this size.
    #[error("the header of {size} bytes exceeds the {limit} bytes that the peer takes")]
    HeaderTooBig {
        /// Its size in bytes, counted as RFC 9114 §4.2.2 does.
        size: u64,
        /// What the peer takes.
        limit: u64,
    },
    /// The peer takes no new requests on this connection; this one was not sent, or not processed.
    #[error("the peer is going away and did not process the request; send it on a new connection")]
    GoingAway,
    /// The peer broke the protocol, and the connection was closed for it.
    #[error("the connection was closed with {code}: {reason}")]
    Protocol {
        /// What it was closed with.
        code: Code,
        /// What the peer did.
        reason: &'static str,
    },
    /// The peer's SETTINGS do not offer what this needs; nothing was sent.
    #[error("the peer does not offer {what}")]
    NotOffered {
        /// What is missing.
        what: &'static str,
    },
    /// Our own datagram was not sent: it fits into no packet. Drop it (RFC 9298 §6.1).
    #[error("the datagram of {size} bytes exceeds the {limit} bytes that fit into a packet")]
    DatagramTooBig {
        /// Its size in bytes.
        size: usize,
        /// What fits at the moment.
        limit: usize,
    },
    /// The connection ended.
    #[error("the connection is closed: {reason}")]
    ConnectionClosed {
        /// Why.
        reason: quinn::ConnectionError,
        /// The request was certainly not processed.
        unprocessed: bool,
    },
}

impl Error {
    /// Whether the request was certainly not processed, so that sending it again elsewhere cannot repeat
    /// it (RFC 9114 §5.2, §8.1 `H3_REQUEST_REJECTED`).
    pub fn is_unprocessed(&self) -> bool {
        match self {
            Self::PeerReset { unprocessed, .. } | Self::ConnectionClosed { unprocessed, .. } => {
                *unprocessed
            }
            Self::Stopped { code } => *code == Code::REQUEST_REJECTED,
            Self::GoingAway
            | Self::Unsendable { .. }
            | Self::HeaderTooBig { .. }
            | Self::NotOffered { .. } => true,
            _ => false,
        }
    }

    /// Whether the whole connection is lost, not only one stream.
    pub fn is_connection(&self) -> bool {
        matches!(self, Self::Protocol { .. } | Self::ConnectionClosed { .. })
    }

    /// The HTTP/3 code that the error carries: the peer's, or the one that the peer was told.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::PeerReset { code, .. }
            | Self::Stopped { code }
            | Self::Malformed { code, .. }
            | Self::Protocol { code, .. } => Some(*code),
            Self::TooLarge { .. } => Some(Code::EXCESSIVE_LOAD),
            Self::ConnectionClosed { reason, .. } => match reason {
                quinn::ConnectionError::ApplicationClosed(close) => Some(close.error_code.into()),
                _ => None,
            },
            Self::Unsendable { .. }
            | Self::Unreadable { .. }
            | Self::HeaderTooBig { .. }
            | Self::NotOffered { .. }
            | Self::DatagramTooBig { .. }
            | Self::GoingAway => None,
        }
    }
}

impl From<Unsendable> for Error {
    fn from(why: Unsendable) -> Self {
        match why {
            Unsendable::Rule(rule) => Self::Unsendable { rule },
            Unsendable::TooLarge { size, limit } => Self::HeaderTooBig { size, limit },
        }
    }
}
