//! The control node: store, registry, snapshots, push, CA and admin API

pub mod store;
