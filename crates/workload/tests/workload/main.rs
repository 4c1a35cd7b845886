//! The socket as programs meet it: with the published `spiffe` crate and a bare gRPC client.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs)]
#![allow(clippy::disallowed_methods, reason = "tests stand outside of the seam")]

mod lab;
mod raw;
mod rules;
mod with_spiffe;
