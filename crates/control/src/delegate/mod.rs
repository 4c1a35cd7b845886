//! Delegates: what issues for one site while this control node cannot be reached (docs/adr/0014-island-mode.md).
//!
//! ```text
//!   the control node                              the delegate: the same program, with settings that name a site
//!   grants   weft ca delegate create, list        enrol    token and request ──► certificate, the state is made
//!   serve    enrols, renews, takes reports  ◄───  keep     renews, reports the audit log, follows what is pushed
//!   merge    records of there, audit log of here  then `issue`, `mesh`, `registry` and `push` serve the site
//! ```
//!
//! A delegate's authority is a journal whose root is elsewhere and whose issuing CA is its certificate (`weft-ca`). Nothing
//! but that certificate and the verifiers' rules confine it.

mod client;
mod enrol;
mod follow;
mod grants;
mod keep;
mod merge;
mod serve;
mod stored;

pub use enrol::DelegateConfig;
pub(crate) use enrol::claim;
pub(crate) use follow::{UPSTREAM, forget};
pub(crate) use grants::{create, list, revoke};
pub(crate) use keep::{Upstream, keep, upkeep};
pub(crate) use serve::{certify, follow, report};
