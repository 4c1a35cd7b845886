//! SPIFFE for everyone else: programs beside the sidecar get its identity, by the SPIFFE Workload API
//! and by Envoy's secret discovery.
//!
//! ```text
//!   program ──▶ Unix socket ──▶ Peer (uid, gid, pidfd) ──▶ Entry: may it? ──no──▶ PermissionDenied
//!                                                             │ yes
//!                                    IdentitySource ──────────▶ stream of whole states, one for each change
//! ```
//!
//! The other way round, [`Subscription`] takes an identity from the Workload API of another provider.
//!
//! Who asks is told by the kernel, never by the caller, and is asked again before each message. Without a
//! registration [`Entry`] nobody gets anything.

mod client;
mod entry;
mod executor;
mod jwt;
mod offer;
mod peer;
mod proto;
mod rpc;
mod sds;
mod server;
mod session;
mod socket_path;

pub use client::{Provided, ProviderError, Subscription};
pub use entry::{Caller, Entry, EntryError, allowed};
pub use jwt::{NoToken, Token, TokenSource};
pub use server::{Error, Workload, WorkloadSocket};
pub use socket_path::socket_path;
