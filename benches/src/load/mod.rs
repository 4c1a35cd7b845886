//! The one client: the same for every pair, in a process of its own.
//!
//! Closed loop: each connection asks again as soon as it has its reply; says what a proxy can carry and what
//! a request costs it. Open loop: requests are due at fixed moments, whatever became of those before, and
//! latency counts from the moment that a request was *due*; says what a user of a service meets. Bulk: bytes
//! over a few connections, as fast as they come.

pub(crate) mod bulk;
mod closed;
pub(crate) mod grpc;
mod http1;
mod open;
mod outcome;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub(crate) use http1::{Client, Workload};
pub(crate) use outcome::{Latency, Outcome, Recorder};

use crate::error::Result;

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// Where the pair takes in traffic.
    pub(crate) entry: SocketAddr,
    /// What is asked for.
    pub(crate) workload: Workload,
    /// How.
    pub(crate) mode: Mode,
    /// Before the window that counts.
    pub(crate) warm_up: Duration,
    /// The window that counts.
    pub(crate) window: Duration,
    /// The proxies, whose CPU time over the window is taken.
    pub(crate) proxies: Vec<u32>,
}

/// How the requests are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Mode {
    /// One request at a time on each connection.
    Closed {
        /// Connections.
        connections: u32,
    },
    /// A fixed schedule.
    Open {
        /// Requests a second.
        rate: u32,
        /// Connections that may be used at the same time.
        connections: u32,
    },
    /// Unary calls, all on one connection of HTTP/2.
    Grpc {
        /// Calls at a time.
        calls: u32,
    },
    /// No requests: a stream of bytes on each connection.
    Bulk {
        /// Connections.
        streams: u32,
    },
}

impl Job {
    /// Does it, to the end.
    pub(crate) async fn run(&self) -> Result<Outcome> {
        match self.mode {
            Mode::Closed { connections } => closed::run(self, connections).await,
            Mode::Open { rate, connections } => open::run(self, rate, connections).await,
            Mode::Grpc { calls } => grpc::run(self, calls).await,
            Mode::Bulk { streams } => bulk::run(self, streams).await,
        }
    }
}
