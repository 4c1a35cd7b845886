//! `weft-netsim`: bad links between network namespaces, for whatever runs in them; and `fuzz`, a mesh in virtual
//! time under random faults.
//!
//! `args` declares the subcommands, `command` carries them out with `weft-netsim-tun`, `mesh_file` and
//! `overrides` read what a link should be like, `lease` gives the machine back what a run took, and
//! `selftest` measures whether a link keeps its promises.

mod args;
mod command;
mod failure;
mod lease;
mod mesh_file;
mod output;
mod overrides;
mod processes;
mod selftest;
mod units;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match command::run(args::Cli::parse().command) {
        Ok(code) => code,
        Err(failure) => {
            output::note(&format!("weft-netsim: {failure}"));
            failure.exit_code()
        }
    }
}
