//! The protocol without I/O: bytes in, events and bytes out. No socket, no task, no clock.

pub(crate) mod capsule;
pub(crate) mod control;
pub(crate) mod credit;
pub(crate) mod datagram;
pub(crate) mod fields;
pub(crate) mod frame;
pub(crate) mod goaway;
pub(crate) mod incoming;
pub(crate) mod message;
pub(crate) mod outgoing;
pub(crate) mod priority;
pub(crate) mod qpack;
pub(crate) mod settings;
pub(crate) mod udp;
pub(crate) mod uni;
pub(crate) mod varint;

use crate::Code;

/// What is wrong with the bytes of a peer, and how far the damage reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The whole connection must be closed with this code (RFC 9114 §8).
    Connection { code: Code, reason: &'static str },
    /// Only this stream is lost: the peer's message breaks this rule.
    Stream { code: Code, rule: &'static str },
    /// The field section is larger than we said we take (RFC 9114 §4.2.2).
    TooLarge,
}

impl Fault {
    /// A malformed message (RFC 9114 §4.1.2): `H3_MESSAGE_ERROR` on its stream, neighbours live on.
    pub(crate) const fn malformed(rule: &'static str) -> Self {
        Self::Stream {
            code: Code::MESSAGE_ERROR,
            rule,
        }
    }

    /// An error that closes the connection.
    pub(crate) const fn connection(code: Code, reason: &'static str) -> Self {
        Self::Connection { code, reason }
    }
}

/// Which end of the connection we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Client,
    Server,
}

#[cfg(test)]
mod incoming_tests;
#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod outgoing_tests;
