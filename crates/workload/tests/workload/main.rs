//! The socket as programs meet it: with the published `spiffe` crate, a bare gRPC client, and Envoy.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests stand outside of the seam")]

mod client;
mod envoy;
#[path = "../interop/mod.rs"]
mod interop;
mod jwt;
mod lab;
mod raw;
mod rules;
mod sds;
mod stand_in;
mod tokens;
mod with_spiffe;
