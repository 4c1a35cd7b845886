//! The weft binary: the command line and nothing else.
//!
//! `cli` declares the subcommands, `settings` merges flags, environment and file for the two long-running
//! roles, `command` carries each subcommand out with the crates below, `demo` runs the reference scenario
//! with real processes of this same executable.

mod cli;
mod command;
mod demo;
mod demo_app;
mod failure;
mod output;
mod ready;
mod runtime;
mod settings;
mod signals;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use cli::{Cli, Role};
use failure::Failure;
use settings::ParseError;

/// A program that serves anybody is never broken on purpose (see `weft_env::mutants`).
const _: () = assert!(!weft_env::mutants::CAN_BE_BROKEN);

/// How long the log's reader gets at the end.
const LAST_WORDS: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    if let Err(failure) = demo::tether::hold() {
        return fail(&failure);
    }
    let args: Vec<OsString> = std::env::args_os().collect();
    let result = match understand(&args) {
        Ok(role) => command::run(role),
        Err(ParseError::Settings(failure)) => Err(failure),
        Err(ParseError::Clap(error)) => error.exit(),
    };
    // What waits is written first: the sentence at the end comes last.
    let heard = weft_telemetry::flush_logging(LAST_WORDS);
    match result {
        Ok(code) => code,
        Err(failure) if heard => fail(&failure),
        Err(failure) => failure.exit_code(),
    }
}

fn understand(args: &[OsString]) -> Result<Role, ParseError> {
    let matches = settings::parse(&Cli::command(), args)?;
    let role = |one: &ArgMatches| Cli::from_arg_matches(one).map(|cli| cli.command);
    let roles = matches.iter().map(role).collect::<Result<Vec<_>, _>>();
    let mut roles = roles.map_err(ParseError::Clap)?.into_iter();
    let mut first = roles
        .next()
        .expect("the command line is parsed once at least");
    roles.for_each(|other| first.join(other));
    Ok(first)
}

fn fail(failure: &Failure) -> ExitCode {
    // Where nobody can be told, the exit code still tells.
    let _ = writeln!(io::stderr(), "weft: {failure}");
    failure.exit_code()
}
