//! The subcommands, one module each.

mod fuzz;
mod link;
#[cfg(feature = "mutants")]
mod mutants;
mod profiles;
mod run;
mod signals;

use std::process::ExitCode;

use crate::args::Command;
use crate::failure::Failure;
use crate::{lease, selftest};

/// Carries out a subcommand.
///
/// # Errors
/// What it says in one sentence.
pub(crate) fn run(command: Command) -> Result<ExitCode, Failure> {
    match command {
        Command::Link(args) => link::link(&args).map(|()| ExitCode::SUCCESS),
        Command::Run(args) => run::run(&args),
        Command::Selftest(args) => selftest::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Fuzz(args) => fuzz::fuzz(&args),
        #[cfg(feature = "mutants")]
        Command::Mutants(args) => mutants::mutants(&args),
        Command::Profiles(args) => profiles::list(&args).map(|()| ExitCode::SUCCESS),
        Command::Watch { id } => lease::watch(&id).map(|()| ExitCode::SUCCESS),
    }
}
