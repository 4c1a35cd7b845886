//! Endpoints on real sockets of the loopback interface, with real certificates.
#![allow(
    clippy::disallowed_methods,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "tests stand outside Env, and a panic is how they fail"
)]

mod fallback;
mod identity;
mod lab;
mod limits;
#[path = "../../../../tests/support/middlebox.rs"]
mod middlebox;
mod paths;
mod pool;
mod relay;
mod requests;
mod resumption;
