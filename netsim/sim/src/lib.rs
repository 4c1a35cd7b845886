//! A world in virtual time, in one process: weft's own code runs in it unchanged.
//!
//! A [`World`] has [`Node`]s (machines: an address, a wall clock, a disk) with [`Process`]es on them. A process
//! reaches the world through its [`weft_env::Env`], as on a real machine; behind it are simulated UDP and TCP
//! over the link model of `weft-netsim`, a wall clock that can be wrong, seeded randomness and the temporary
//! files of the run. Time is tokio's paused clock: it jumps from event to event, so an hour passes in
//! seconds, and packets arrive at the exact nanosecond that the link model says.
//!
//! ```text
//!   run(seed, |world| async { … })         one OS thread, one current-thread runtime, paused time
//!        │
//!        ▼
//!   World ── events (ns, sequence) ── driver: sleep to the millisecond, settle, advance by the rest, deliver
//!     │
//!     ├─ Node 10.0.0.1 ── Process ── Env ──▶ weft-transport, weft-control, weft-proxy, an application
//!     ├─ Node 10.0.0.2 …            └─ gate: pause, kill (first the fence, then the tasks)
//!     └─ links[from][to] ── weft_netsim::Link, and a switch for partitions
//! ```
//!
//! A run depends on its seed alone. What is hashed ([`Hashes`]): every datagram with its time, size and fate;
//! their payloads; and the decisions that the one who runs it reports. Payloads repeat only in a program that
//! is linked as `weft-netsim-entropy` says: [`World::repeats_payloads`] tells.
//!
//! Not simulated: kernel queues and GSO of real UDP, races between threads, CPU time (it is zero), and what a
//! disk loses when the power goes.

mod clock;
mod disk;
mod event;
mod gate;
mod names;
mod node;
mod platform;
mod process;
mod run;
mod seed;
mod tcp;
mod trace;
mod udp;
mod wakes;
mod world;

pub use event::NodeId;
pub use gate::current_process;
pub use node::Node;
pub use process::Process;
pub use run::{RunError, run};
pub use trace::Hashes;
pub use world::{Counters, World};
