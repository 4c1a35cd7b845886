//! The control node: it holds the authority, what operators wrote and the list of live sidecars, and pushes
//! to all of them.
//!
//! ```text
//!   weft apply, status, …            sidecars (QUIC, HTTP/3)
//!        │ Unix socket                  │ join, renew        │ sync
//!        ▼                              ▼                    ▼
//!      admin ──► resources            issue (CA)           session ──► registry: who is there,
//!        │           │                  │                    ▲          what each acknowledged
//!        │           ▼                  ▼                    │ whole, then deltas      │
//!        │        ╔═══════════ store: revisions, watch ═════════╗ ──► feed             │
//!        │        ╚═════════════════════════════════════════════╝ ◄── endpoints ◄──────┘
//!        └─ wait, rotate: look at the registry until everyone is done
//! ```
//!
//! Everything that must survive is in the [`store`]; the registry is rebuilt by sidecars that reconnect.
//! Nothing waits for a sidecar: a slow one gets the newest state when it reads again.
//!
//! [`run`] is the node, [`init`] makes its state, [`AdminClient`] asks a running one. The decisions (what
//! a delta is, whose grace is over, whose receipt is missing, how far a rotation has come) are plain
//! functions that get the time as an argument.

mod accept;
mod admin;
mod attest;
mod audit;
mod backup;
mod delegate;
mod error;
mod federation;
mod foreign;
mod health;
mod issue;
mod keys;
mod mesh;
mod node;
mod problem;
mod push;
mod registry;
mod resources;
mod run;
mod settings;
mod state;
mod status;
pub mod store;
mod time;

#[cfg(test)]
mod testing;

pub use admin::types::*;
pub use admin::{AdminClient, AdminError, ProgressStream};
pub use backup::{BackupReport, backup, restore};
pub use delegate::DelegateConfig;
pub use error::ControlError;
pub use federation::types::{FederateRequest, FederationInfo, FetchFailure, Profile, Relation};
pub use federation::{BundleEndpoint, WebCertificate};
pub use issue::{Anchor, Secret, verify_evidence};
pub use keys::{KeyAccess, open_keys};
pub use run::{ControlConfig, ControlReady, run};
pub use state::{InitConfig, InitReport, init};
pub use weft_pkcs11::{Pin, TokenAccess};

/// Version of this program.
const VERSION: &str = env!("CARGO_PKG_VERSION");
