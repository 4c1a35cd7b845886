//! The same pairs over bad links: namespaces joined by `weft-netsim`, in real time, one link for each turn.
//!
//! ```text
//!   here: lossy ──▶ weft-netsim run ──▶ in namespace a: role lossy-turn
//!                     link a ⇄ b            ├─ client, proxy A        (namespace a)
//!                                           └─ proxy B, server        (namespace b)
//! ```
//!
//! Turns of different pairs run at the same time, each over a link of its own with the same seed. A turn whose
//! link was late, because this machine had no CPU for it, is done again; if it stays late it is marked.

mod link;
mod plan;
mod run;
mod turn;

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use serde::{Deserialize, Serialize};

pub(crate) use plan::{Condition, Load, Peer};
pub(crate) use run::lossy;
pub(crate) use turn::Turn;

use crate::load::Outcome;
use crate::pairs::Kind;

/// What to measure over bad links.
#[derive(Debug, Clone, Args)]
pub(crate) struct LossyArgs {
    /// Kinds of measurement
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    pub(crate) part: Vec<Part>,
    /// Which pairs
    #[arg(long, value_enum, default_value_t = Peers::All)]
    pub(crate) peers: Peers,
    /// Of these pairs, only such; may be given several times
    #[arg(long, value_enum, value_delimiter = ',')]
    pub(crate) pair: Vec<Kind>,
    /// Sizes of replies in the part `loss`, KiB
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10])]
    pub(crate) kib: Vec<u64>,
    /// Seeds of the links, so many: each loses other packets
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    pub(crate) first_seed: u64,
    /// Seconds that count in each turn: less than 30 does not show that BBR probes every 10 s
    #[arg(long, default_value_t = 30.0, value_parser = crate::compare::seconds)]
    pub(crate) window: f64,
    /// Turns at the same time
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=32))]
    pub(crate) at_once: u32,
    /// The binary of weft
    #[arg(long, default_value = "target/release/weft")]
    pub(crate) weft: PathBuf,
    /// The binary of weft-netsim
    #[arg(long, default_value = "target/release/weft-netsim")]
    pub(crate) netsim: PathBuf,
    /// Write all figures as JSON into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Add to what that file has
    #[arg(long, requires = "json")]
    pub(crate) add: bool,
    /// Fewer pairs and conditions, one seed, short turns
    #[arg(long)]
    pub(crate) quick: bool,
}

/// A kind of measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Requests at fixed moments, without loss and with 1 % and 2 %
    Loss,
    /// Large replies, the same
    Bulk,
    /// Requests at fixed moments over each other link that has a name
    Profiles,
}

/// Which pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Peers {
    /// All of them
    All,
    /// weft, Envoy and the small pairs
    Main,
    /// The rest: no proxy, nginx, HAProxy
    Rest,
}

impl LossyArgs {
    /// What fits into minutes.
    pub(crate) fn quick(mut self) -> Self {
        self.quick = true;
        self.seeds = 1;
        self.kib = vec![1];
        self.window = self.window.min(6.0);
        self
    }
}

/// Everything that was found over bad links.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Lossy {
    /// Seconds that counted in each turn.
    pub(crate) window_s: f64,
    /// Each pair under each condition.
    pub(crate) rows: Vec<Row>,
}

/// One pair under one condition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) condition: Condition,
    pub(crate) peer: Peer,
    /// One for each seed.
    pub(crate) turns: Vec<Taken>,
}

/// What became of a turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Taken {
    pub(crate) seed: u64,
    /// What was found, or why there is nothing.
    pub(crate) found: std::result::Result<Found, String>,
}

/// One turn.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Found {
    pub(crate) outcome: Outcome,
    /// The first request of a pair without connections, ms; nothing if it was not the first try.
    pub(crate) first_ms: Option<f64>,
    /// Bytes that entered the link, both ways, IP headers included, from the pair's start to its end.
    pub(crate) link_bytes: u64,
    /// Whether the link or the CPU was late, also when it was tried again.
    pub(crate) late: bool,
    /// How late a bare timer of the usual priority was, p99, ms.
    #[serde(default)]
    pub(crate) cpu_late_p99_ms: Option<f64>,
    /// How late the link let packets go, p99, ms.
    pub(crate) link_late_p99_ms: f64,
    /// How late a bare timer was in the same time, p99, ms.
    pub(crate) bare_timer_p99_ms: f64,
}

impl Found {
    /// Whether requests were due that nobody answered: then there are no percentiles.
    pub(crate) fn caught_up(&self) -> bool {
        self.outcome.unanswered == 0
    }
}
