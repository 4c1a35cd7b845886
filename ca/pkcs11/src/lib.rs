//! The authority's keys in a PKCS#11 token (a hardware security module, or SoftHSM2): they are made there, sign there,
//! and are destroyed there. No private key is ever in this process, in a file or in a backup.
//!
//! ```text
//!   TokenKeyStore (a weft_ca::KeyStore) ── job, with a deadline ──> Pool: a few threads, each with a session
//!        │  place: which token, whose keys in it                      │
//!        │  (pkcs11.json in the key directory)                        ▼
//!        └── TokenSigner (a weft_ca::Sign)                    Token: finds it, logs in, finds it again when it was gone
//!                                                                     │
//!                                                                     ▼
//!                                                             Module: the vendor's library, loaded at run time
//! ```
//!
//! The vendor's code runs in this process and may block for as long as it likes: only the pool's threads enter it, and
//! whoever asked them stops to wait at a deadline. A PIN that was refused is not tried again: tokens count.

mod ecdsa;
mod error;
mod module;
mod place;
mod pool;
mod session;
mod store;
mod token;

pub use error::TokenFault;
pub use place::{Place, recorded};
pub use store::TokenKeyStore;
pub use token::{Pin, TokenAccess};
