//! The authority of a trust domain: it turns an attested identity and a certificate request into an X509-SVID.
//!
//! ```text
//!   Journal ── what the authority is: slots of roots and issuing CAs, prepared → active → old → removed
//!      │  each transition returns the next Journal; whoever holds the store persists it, then loads it
//!      ▼
//!   Authority::load(config, journal, keys) ── issue(request, identity, …) ──> Issued (leaf, issuing CA)
//!      │                                                                bundle() ──> TrustBundle, pin() ──> RootPin
//!      └── KeyStore: where private keys live. They never enter the journal or the store.
//! ```
//!
//! Running and restarting are the same path: after each change the authority is loaded from the journal that was
//! persisted, so a crash between any two steps leaves a state from which it goes on.
//!
//! [`seal`] and [`unseal`] lock what leaves the machine, [`offline`] is the side of a root that never joins.
//!
//! The crate is pure but for [`FileKeyStore`]: time and randomness are arguments, persistence is the caller's
//! (`weft-control`). What it issues is checked by `weft-certs`, which knows nothing of this crate.

pub mod audit;
mod authority;
mod challenge;
mod config;
mod csr;
mod delegate;
mod error;
mod import;
mod issue;
mod journal;
mod jwt;
mod keys;
pub mod offline;
mod prepare;
mod seal;
mod slot;
mod template;
mod token;
mod when;

pub use authority::Authority;
pub use challenge::{CHALLENGE_LIFE, ChallengeError, Challenges};
pub use config::{BACKDATE, CaConfig};
pub use csr::{NewKey, key_of_request, make_csr};
pub use delegate::{LONGEST_DELEGATE, SHORTEST_DELEGATE, check_life, delegate_request};
pub use error::{Error, TokenError};
pub use issue::{Issued, RESERVED_NAMESPACE, is_reserved};
pub use journal::{Due, Intent, Journal, LogEntry};
pub use jwt::{IssuedJwt, JwtDue, JwtSlot, TOKEN_TTL};
pub use keys::{FileKeyStore, KeyId, KeyStore, KeyType, MemoryKeyStore, Sign, Signer, SoftKey};
pub use seal::{Secret, seal, unseal};
pub use slot::{Cross, Slot, SlotState, Tier};
pub use token::{JoinToken, TokenRecord};
pub use when::rfc3339;

#[cfg(test)]
mod testing;
