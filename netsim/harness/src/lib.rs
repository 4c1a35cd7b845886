//! A small mesh of real control node and real sidecars, in virtual time, under a random schedule of faults; and
//! what must hold all the while.
//!
//! One control node, three services of two instances each, an application and a client beside each. A seed makes
//! the schedule (`schedule`): loss, partitions (one-way too), kills (between two steps on the disk too),
//! restarts, pauses, slow and full disks, clocks that jump, certificates that expire, rotations, config pushes,
//! machines that exchange addresses, stolen tokens. Then the faults stop, and everything must come right within
//! bounded time, and stay so.
//!
//! ```text
//!   run_seed(seed)
//!      │  weft_netsim_sim::run
//!      ▼
//!   scenario ── mesh (nodes, processes, operator) ◀── schedule (faults from the seed)
//!      │          ├─ client ─▶ sidecar ═▶ sidecar ─▶ app
//!      │          └─ control
//!      └─ observer ◀── what processes log (access log, config in force), what clients and apps see
//!            └─ check, bounds: the invariants
//! ```
//!
//! [`fuzz`] runs many seeds; `weft-netsim fuzz` is its command line.

mod app;
mod bounds;
mod certificates;
mod check;
mod client;
mod content;
mod fuzz;
mod listen;
mod mesh;
mod model;
mod observer;
mod operator;
mod scenario;
mod schedule;

pub use fuzz::{FuzzReport, Fuzzing, NoProgress, Progress, fuzz};
#[cfg(feature = "mutants")]
pub use weft_env::mutants::{Mutant, activate};

pub use scenario::{Failure, Settings, Summary, run_seed};

/// A trace of two runs and where they part.
#[must_use]
pub fn first_difference(one: &[String], other: &[String]) -> Option<(usize, String, String)> {
    let longest = one.len().max(other.len());
    let at = |lines: &[String], n: usize| lines.get(n).cloned().unwrap_or_default();
    (0..longest)
        .map(|n| (n, at(one, n), at(other, n)))
        .find(|(_, a, b)| a != b)
}
