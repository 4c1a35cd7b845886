//! HTTP/3 over quinn: a sans-I/O core and a thin shell.
//!
//! One QUIC connection between two nodes of the mesh carries thousands of requests and tunnels. This crate
//! turns its streams into `http` messages and back, and knows nothing of certificates, services or pools:
//! those are `weft-transport`'s.
//!
//! ```text
//!   Requests ── send ──▶ SendStream + RecvStream ─┐            ┌─ Accept ─ Pending ─ head ─▶ SendStream + RecvStream
//!                                                 │ QUIC       │
//!   Driver: control, QPACK streams, GOAWAY ───────┴────────────┴─ Driver, Shutdown
//! ```
//!
//! What it promises, each by a test:
//!
//! - **Neighbours survive.** What goes wrong with one request stays with it: a handler that panics, a caller
//!   that cancels, a malformed message. Only a peer that breaks the framing loses its connection.
//! - **No end without a finish.** A half that is dropped is reset; a message that is cut short is an error.
//! - **Bounded.** Of what a peer sends only one header section up to [`Config::max_field_section_size`] is
//!   kept for each stream; content is handed on as it arrives, without a copy.
//! - **Retry-safe means unprocessed.** [`Error::is_unprocessed`] is true only when it is certain.
//!
//! It speaks QPACK with the static table only and sends no Huffman strings: in a mesh they cost more CPU than
//! the bytes are worth. It refuses pushes. Extended CONNECT ([`Protocol`]), HTTP datagrams ([`Datagrams`]) and
//! CONNECT-UDP ([`UdpTemplate`], [`Requests::connect_udp`], [`UdpSender::accept`]) are there and off until
//! [`Config`] switches them on.
//!
//! The crate starts no task: the owner spawns [`Driver::run`] and a task for each request.

mod aside;
mod asked;
mod blocked;
mod client;
mod code;
mod config;
mod core;
mod credit;
mod datagrams;
mod driver;
mod error;
#[cfg(test)]
mod fuzz;
mod gather;
mod peer_streams;
mod priority;
mod protocol;
mod readers;
mod recv;
mod send;
mod server;
mod shared;
mod turns;
mod udp;

pub use aside::{Aside, send_aside};
pub use blocked::Blocked;
pub use client::{Requests, client};
pub use code::Code;
pub use config::Config;
pub use core::credit::Windows;
pub use credit::Standing;
pub use datagrams::Datagrams;
pub use driver::Driver;
pub use error::Error;
pub use gather::gather;
pub use protocol::Protocol;
pub use readers::Lending;
pub use recv::RecvStream;
pub use send::SendStream;
pub use server::{Accept, Pending, Shutdown, server};
pub use udp::{InvalidUdp, UdpAnswer, UdpHost, UdpReceiver, UdpSender, UdpTarget, UdpTemplate};
