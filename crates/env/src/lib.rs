//! The seams to the world: network, clocks, randomness, disk, spawning.
//!
//! Everything in weft that does I/O reaches the operating system through one cloned [`Env`], and nothing
//! else does (clippy's `disallowed-methods` keeps it so). Behind an `Env` stands a [`Platform`]: the
//! [`SystemPlatform`] with real sockets, or a simulator's, which runs the very same code in virtual time
//! on a simulated network.
//!
//! ```text
//!   transport, control, proxy
//!        │  Env (cloned, no generics)
//!        ▼
//!   Platform ── SystemPlatform: sockets, system clock, OS randomness, blocking threads
//!            └─ a simulator:    in-memory links, a clock per node, seeded randomness, inline disk
//! ```
//!
//! * Monotonic time is tokio's [`Instant`](tokio::time::Instant) (a simulator pauses it); wall time is
//!   [`Env::wall`], one clock per node.
//! * Tasks are owned: [`Tasks`] cancels, waits for and finally aborts what it spawned.
//! * Files are touched inside [`Env::disk`] only, off the threads that carry traffic.

mod channel;
mod disk;
mod env;
mod handed;
pub mod mutants;
mod platform;
mod process;
mod rng;
mod socket_dir;
mod stream;
mod supervisor;
mod system;
mod tasks;
mod udp;
mod unix;

pub use channel::{Channel, ChannelListener, MAX_MESSAGE, Message};
pub use disk::{Disk, DiskError, DiskGate, DiskOp, LockGuard, Mode};
pub use env::Env;
pub use handed::SharedUdp;
pub use platform::{BoxFuture, Platform, TaskGate};
pub use process::{FileIdentity, PeerProcess};
pub use rng::Rng;
pub use stream::{Listener, PeerAddr, PeerCred, SimListener, SimStream, Stream};
pub use system::SystemPlatform;
pub use tasks::{Broken, Tasks};
pub use tokio::task::JoinHandle;
pub use unix::SOCKET_PATH_MAX;
