//! The CA as a service of the mesh: joining, renewal, the control node's own certificate, rotation.

mod authority;
mod limit;
mod own;
mod rotation;
mod service;
mod tokens;
mod tracker;
mod upkeep;

pub(crate) use authority::{CaService, Keys};
pub(crate) use own::{OwnIdentity, keep_own_svid};
pub(crate) use rotation::{Rotation, Rotations};
pub(crate) use service::{join, renew};
pub(crate) use tokens::{create as create_token, list as list_tokens};
pub(crate) use upkeep::upkeep;
