//! weft-h3 against raw QUIC streams, against itself, and against the `h3` crate, over loopback.

#![allow(clippy::disallowed_methods, reason = "tests run on the real system")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod client_rules;
mod common;
mod connection_rules;
mod interop;
mod server_rules;
mod shutdown;
mod soak;
mod streams;
