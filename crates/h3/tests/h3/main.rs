//! weft-h3 against raw QUIC streams, against itself, and against the `h3` crate, over loopback.
//!
//! `docs/h3-conformance.md` says which rule of which RFC each of these tests holds us to, and which test rules
//! out each defect that was found in the `h3` crate.

#![allow(clippy::disallowed_methods, reason = "tests run on the real system")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod client_rules;
mod common;
mod conformance;
mod connect_udp;
mod connection_rules;
mod credit;
mod datagrams;
#[path = "../../../../tests/support/environment.rs"]
mod environment;
mod extended_connect;
mod foreign;
mod interop;
mod server_rules;
mod shutdown;
mod soak;
mod streams;
