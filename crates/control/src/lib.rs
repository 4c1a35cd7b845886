//! The control node: store, registry, snapshots, push, CA and admin API

mod admin;
mod error;
mod issue;
mod problem;
mod push;
mod registry;
mod settings;
mod state;
pub mod store;
mod time;

#[cfg(test)]
mod testing;

pub use admin::types::*;
pub use admin::{AdminClient, AdminError, ProgressStream};
pub use error::ControlError;

pub(crate) use weft_resources::SYSTEM_NAMESPACE;
