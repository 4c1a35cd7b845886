//! Who am I, whom do I trust: SPIFFE identities and the TLS configs that follow their rotation.
//!
//! ```text
//!   SpiffeId ── names ──> X509Svid (chain + key, "who am I")     TrustBundle, BundleSet ("whom do I trust")
//!                              └───────────┬───────────────────────────────┘
//!                                   IdentitySource            swapped whole when either rotates
//!                                          │ read once in every handshake
//!                        tls::server_config, tls::client_config, tls::join_config
//!                                          │
//!                                   verify_chain ──> PeerIdentity | VerifyError
//! ```
//!
//! The crate is pure: no task, no socket, no clock (time comes in as an argument or through [`Clock`]).
//! `weft-ca` makes what is checked here; `weft-transport` puts the TLS configs to work.
//!
//! A peer is trusted only if [`verify_chain`] says so: the rules of the X509-SVID standard for its leaf, then
//! an RFC 5280 path to a root *of the leaf's own trust domain*. Roots of different trust domains are never pooled.

mod bundle;
mod delegate;
mod der;
mod error;
mod explain;
mod id;
mod jwk;
mod jwt;
mod jwt_key;
mod machine;
mod path;
mod pem;
mod pin;
mod revocation;
mod service_account;
mod signed;
mod site;
mod source;
mod svid;
pub mod tls;
mod verify;

use std::sync::Arc;
use std::time::SystemTime;

pub use bundle::{BundleSet, TrustBundle};
pub use der::{concatenated, not_after_of, serial_of};
pub use error::{Error, VerifyError};
pub use explain::{
    Description, Finding, certificate_list, certificates, describe, explain, to_pem,
};
pub use id::{SpiffeId, TrustDomain};
pub use jwt::{JwtError, JwtSvid, jwt_signing_input, jwt_with_signature, verify_jwt_svid};
pub use jwt_key::JwtKey;
pub use machine::{
    JoinStatement, Machine, MachineError, MachineIdentity, check_proof, verify_machine,
};
pub use pin::RootPin;
pub use revocation::{RevocationList, RevokedIdentity};
pub use service_account::{ServiceAccount, ServiceAccountError, TokenKeys, verify_service_account};
pub use signed::{SignedDocument, SignedError};
pub use site::{Site, delegate_id};
pub use source::{Identity, IdentitySource};
pub use svid::{PrivateKey, X509Svid};
pub use verify::{ExpectedPeer, PeerIdentity, Usage, check_revoked, verify_chain, verify_expected};

pub use rustls::pki_types::CertificateDer;

/// The wall clock that certificates are checked against. Each simulated node has its own.
pub type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

#[cfg(test)]
mod testing;
