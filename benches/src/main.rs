//! What weft costs: counts of its parts, and whole pairs of proxies beside what a user would pick instead.
//!
//! ```text
//!   cli ─▶ compare ── pairs (start each kind) ── load (one client for all) ── stats ─▶ report
//!            └────── roles: this program again, as server, client or baseline proxy
//! ```
//!
//! Every figure is taken from processes of their own: server, client and each proxy. The client is the same
//! for every pair, and takes the proxies' CPU time over exactly the window that it measures in.
#![allow(
    clippy::disallowed_methods,
    reason = "an instrument measures the real world: real clocks, real sockets, no simulated ones"
)]

mod certs;
mod cli;
mod compare;
mod error;
mod load;
mod lossy;
mod meta;
mod micro;
mod output;
mod pairs;
mod process;
mod report;
mod roles;
mod scale;
mod stats;
mod usage;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::note(&format!("weft-benches: {error}"));
            ExitCode::FAILURE
        }
    }
}
