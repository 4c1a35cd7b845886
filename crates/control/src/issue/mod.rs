//! The CA as a service of the mesh: joining, renewal, the control node's own certificate, rotation, revocation.

mod attested;
mod authority;
mod evidence;
mod issued;
mod job;
mod jwt;
mod ledger;
mod limit;
mod own;
mod plan;
mod proof;
mod refusals;
mod revive;
mod revoking;
mod rotation;
mod service;
mod tokens;
mod tracker;
mod upkeep;
mod verbs;
mod witness;

#[cfg(test)]
mod crash_tests;

pub use evidence::{Anchor, verify_evidence};
pub use weft_ca::Secret;

pub(crate) use attested::join_attested;
pub(crate) use authority::{Along, CaService, JOURNAL, Keys, read_journal};
pub(crate) use evidence::list as list_evidence;
pub(crate) use issued::{Leaf, put_leaf};
pub(crate) use jwt::Tokens;
pub(crate) use limit::{CERTIFICATES_PER_S, RateLimit};
pub(crate) use own::{OwnIdentity, keep_own_svid, keep_own_trust};
pub(crate) use proof::{ended, proof};
pub(crate) use refusals::JoinRefusals;
pub(crate) use revive::revive;
pub(crate) use revoking::{prune, readmit, revoke};
pub(crate) use rotation::{Rotation, Rotations};
pub(crate) use service::{bundles, decode, join, renew};
pub(crate) use tokens::{
    create as create_token, list as list_tokens, note_expired, revoke as revoke_token,
};
pub(crate) use upkeep::upkeep;
pub(crate) use verbs::{activate, csr, import, prepare, revoke_authority, taint};
