//! Envoy secrets.
