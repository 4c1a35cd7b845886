//! Envoy for tests of this crate and of the whole.

#[path = "../../../../tests/support/environment.rs"]
mod environment;
pub mod envoy;
pub mod http;
