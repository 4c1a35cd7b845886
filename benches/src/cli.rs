//! The command line.

use clap::{Parser, Subcommand};

use crate::compare::CompareArgs;
use crate::error::{Error, Result};
use crate::pair::{Site, weft_binary};
use crate::report::ReportArgs;
use crate::role::Role;
use crate::sample::Spread;

/// Measures weft beside what would be used instead.
///
/// Ratios are taken within one run, in alternating repetitions: absolute figures belong to the machine.
#[derive(Debug, Parser)]
#[command(name = "weft-benches", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// All pairs on loopback, closed loop; prints a table
    Compare(CompareArgs),
    /// The same, written into docs/performance as JSON and Markdown
    Report(ReportArgs),
    #[command(subcommand, hide = true)]
    Role(Role),
}

/// Does what is asked.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Task::Role(role) => role.run(),
        Task::Compare(args) => compare(&args),
        Task::Report(args) => args.run(),
    }
}

fn compare(args: &CompareArgs) -> Result<()> {
    let dir = tempfile::Builder::new()
        .prefix("weft-benches-")
        .tempdir()
        .map_err(Error::io("make a folder"))?;
    let site = Site::loopback(dir.path(), weft_binary(args.weft.as_deref())?)?;
    let mut done = 0;
    let outcome = args.run(&site, &mut |all, what| {
        done += 1;
        eprintln!("{done}/{all} {what}");
    })?;
    for sample in &outcome.samples {
        let cpu = sample
            .cpu_us()
            .map_or_else(String::new, |cpu| format!("{cpu:.2}"));
        let p50 = Spread::of(sample.latency("p50"));
        println!(
            "{:<16} {:<32} {:>10.0} req/s  p50 {:>8.1} µs  CPU {cpu:>8} µs  failed {} {}",
            sample.subject,
            sample.workload.name(),
            sample.rate(),
            p50.map_or(f64::NAN, |p50| p50.median),
            sample.load.failed,
            sample.load.first_failure.as_deref().unwrap_or_default(),
        );
    }
    Ok(())
}
