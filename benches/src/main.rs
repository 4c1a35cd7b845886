//! `weft-benches`: weft beside what a user would pick instead, measured in the same run.
//!
//! `role` has the small programs that are measured or measure (server, copy pair, HTTP/2 pair, load),
//! `pair` puts them around a service, `compare` decides what runs when, and `report` writes what came of it.
//! Nothing is written that was not measured.

#![allow(
    clippy::disallowed_methods,
    reason = "benchmarks stand outside Env: they measure the real clock and real sockets"
)]
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line tool without logs"
)]

mod cli;
mod compare;
mod error;
mod pair;
mod process;
mod report;
mod role;
mod sample;
mod tls;
mod workload;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("weft-benches: {error}");
            ExitCode::FAILURE
        }
    }
}
