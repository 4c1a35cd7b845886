//! The sidecar, as a library: what runs beside each service and joins policy to transport.
//!
//! ```text
//!  own application                                                       other sidecars
//!   HTTP/1.1, CONNECT, TCP ──▶ outbound ──┐                     ┌── HTTP/3 ──▶
//!                                         ├─ Running (snapshot) ┤   transport (one endpoint, one pool)
//!   HTTP/1.1, TCP          ◀── inbound ───┘         ▲           └── HTTP/3 ◀──
//!                                                   │ swap
//!  control node ◀── sync, renew ──▶ control_client ─┘      identity (renewal) ──▶ IdentitySource
//! ```
//!
//! A request reads the pointer to `Running` once, at its start, and keeps that snapshot to its end. All
//! decisions are `weft-policy`'s; what is here carries them out. Modules in the order that a request meets
//! them: `bootstrap`, `attest` and `join` (before the first), `outbound` (`target`, `headers`, `request_id`, `running`), then
//! on the other side `inbound` (`xfcc`), with `tunnel` for byte streams, `record` for what is counted and
//! logged, and `respond` for every answer that weft makes by itself.
//!
//! With an identity from elsewhere, `provider` stands in the place of `bootstrap` and `identity`.
//!
//! `sidecar` starts all of it, `serving` ends it or gives it to a new process (`handover`).
//!
//! [`run`] is the whole of it: settings in, a sidecar until the token is cancelled. [`run_group`] runs several in one process,
//! each with its own identity (`group`).

mod accept;
mod admin;
mod attest;
mod backoff;
mod bootstrap;
mod config;
mod control_client;
mod csr;
mod dice;
mod error;
mod group;
mod handover;
mod headers;
mod identity;
mod inbound;
mod incomplete;
mod join;
mod link;
mod node;
mod outbound;
mod provider;
mod ready;
mod record;
mod request_id;
mod respond;
mod rpc;
mod running;
mod serving;
mod settings;
mod sidecar;
mod state_dir;
mod target;
mod tokens;
mod tunnel;
mod vitals;
mod xfcc;

pub use config::{
    AppPort, Attestor, DEFAULT_TRUST_DOMAIN, Delegate, PeerProfile, SidecarConfig, TcpListener,
    TokenSource, WorkloadApi,
};
pub use error::Error;
pub use group::{GroupError, MAX_GROUP, Member, run_group};
pub use handover::{Program, Upgraded, upgrade};
pub use ready::Ready;
pub use sidecar::run;
pub use weft_transport::{KeyExchange, Profile};

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
