//! The admin API: JSON over HTTP/1.1 on a Unix socket in the state directory.

mod client;
mod query;
pub(crate) mod types;

pub use client::{AdminClient, AdminError, ProgressStream};

/// Largest reply, in bytes.
const MAX_REPLY: usize = 64 * 1024 * 1024;
