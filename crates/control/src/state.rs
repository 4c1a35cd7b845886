//! The state directory: where things are in it.

/// The local socket of the admin API.
pub(crate) const SOCKET: &str = "control.sock";
/// The store.
pub(crate) const STORE: &str = "store.redb";
/// Keys of the authority.
pub(crate) const KEYS: &str = "ca";
/// Held while a control node runs.
pub(crate) const LOCK: &str = "lock";
