//! Envoy for tests of this crate and of the whole.

pub mod envoy;
pub mod http;
