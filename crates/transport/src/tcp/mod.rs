//! The way around blocked UDP: the same requests and tunnels as HTTP/2 with mutual TLS over TCP, on the port of the
//! same number (what the field calls HBONE).
//!
//! A lost packet holds up every stream of such a connection. It is used while there is no other way
//! ([`crate::race`] decides), and left as soon as there is ([`crate::probe`]).

mod client;
mod codes;
mod dial;
mod keep_alive;
mod listen;
mod recv;
mod send;
mod server;
mod shared;
mod wire;

pub(crate) use client::Requests;
pub(crate) use dial::{Dialled, Driver, dial, rejection};
pub(crate) use listen::accept;
pub(crate) use recv::RecvHalf;
pub(crate) use send::SendHalf;
pub(crate) use wire::TcpWire;

/// The application protocol over TCP (RFC 9113 §3.2), as HBONE has it.
pub(crate) const ALPN: &[u8] = b"h2";
/// Fields in one header section, as over QUIC.
const MAX_FIELDS: usize = 128;
