//! The admin API: JSON over HTTP/1.1 on a Unix socket in the state directory.

mod authority;
mod client;
mod client_ca;
mod federation;
mod query;
mod routes;
mod server;
pub(crate) mod types;

pub use client::{AdminClient, AdminError, ProgressStream};
pub(crate) use server::serve;

/// Largest request, in bytes: some thousands of resources at once.
const MAX_BODY: usize = 32 * 1024 * 1024;
/// Largest reply, in bytes.
const MAX_REPLY: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests;
