//! An upgrade without loss: a new process takes the place of a running one on the same machine
//! (docs/adr/0009-upgrades.md).
//!
//! ```text
//!  new process (take)                          running process (give)
//!      hello ───────────────────────────────▶  its link to the control plane ends, what is in force is on disk
//!            ◀─────────────── offer, sockets
//!      starts from what is on disk
//!      ready ───────────────────────────────▶  accepts and reads nothing more
//!            ◀───────────────────────── yours
//!      accepts and reads
//!      taken ───────────────────────────────▶  drains
//! ```
//!
//! Until `taken` the running process can go on as if nothing had been, and does if the new one fails, ends or is
//! silent. `message` is what is said, `doors` the sockets that change hands, `give` the running side and `take` the
//! new one, `program` how the running process starts its successor.

pub(crate) mod doors;
pub(crate) mod give;
mod message;
mod program;
pub(crate) mod take;
pub(crate) mod upgrade;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use message::Upgraded;
pub use program::Program;
pub use upgrade::upgrade;

/// The other side says its next word within this time, where nothing is to be done for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a new process may take to start from what the old one has given it.
const STARTING: Duration = Duration::from_secs(20);
/// Generations that still finish their streams at one time. Each is a process.
const MAX_EARLIER: usize = 8;

/// The socket in the state directory on which a new process asks.
pub(crate) fn desk(state_dir: &Path) -> PathBuf {
    state_dir.join("handover.sock")
}
