//! The command line.

use std::future::Future;
use std::io::IsTerminal;
use std::path::Path;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::compare::{self, Arena, CompareArgs};
use crate::error::{Error, Result};
use crate::lossy::{self, LossyArgs};
use crate::meta::Meta;
use crate::micro::{self, MicroArgs};
use crate::output;
use crate::report::{self, ReportArgs};
use crate::roles::Role;
use crate::scale::{self, ScaleArgs};

/// What weft costs: counts of its parts, and whole pairs of proxies beside what a user would pick instead
#[derive(Debug, Parser)]
#[command(name = "weft-benches", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Client → proxy → proxy → server, for weft and for what one would take instead
    Compare(Box<CompareArgs>),
    /// The same pairs over bad links, in real time
    Lossy(Box<LossyArgs>),
    /// Many simulated sidecars against one control node
    Scale(ScaleArgs),
    /// The parts by themselves: time and instructions
    Micro(MicroArgs),
    /// Runs any of these, and writes pages, plots and tables
    Report(ReportArgs),
    /// One process of a run
    #[command(subcommand, hide = true)]
    Role(Role),
}

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Compare(args) => block_on(run_compare(*args)),
        Command::Lossy(args) => block_on(run_lossy(*args)),
        Command::Scale(args) => block_on(run_scale(args)),
        Command::Micro(args) => block_on(run_micro(args)),
        Command::Report(args) => block_on(async move { report::report(&args).await }),
        Command::Role(role) => block_on(role.run()),
    }
}

/// Every process of a run has one thread for its traffic.
fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?;
    runtime.block_on(future)
}

async fn run_compare(args: CompareArgs) -> Result<()> {
    if let Some(status) = compare::enter().await? {
        std::process::exit(status.code().unwrap_or(1));
    }
    let args = if args.quick { args.quick() } else { args };
    let meta = Meta::now().await;
    let arena = Arena::prepare(args.congestion).await?;
    let bar = progress();
    let comparison = compare::compare(&args, arena, &bar).await?;
    bar.finish_and_clear();
    output::line(&report::markdown::comparison(&comparison));
    write(meta, comparison, args.json.as_deref())
}

async fn run_lossy(args: LossyArgs) -> Result<()> {
    let args = if args.quick { args.quick() } else { args };
    let bar = progress();
    let lossy = lossy::lossy(&args, &bar).await?;
    bar.finish_and_clear();
    output::line(&report::lossy::tables(&lossy));
    Ok(())
}

async fn run_scale(args: ScaleArgs) -> Result<()> {
    let args = if args.quick { args.quick() } else { args };
    let bar = progress();
    let meta = Meta::now().await;
    let meshes = scale::scale(&args, &bar).await?;
    bar.finish_and_clear();
    output::line(&report::markdown::scale(&meshes));
    write(meta, meshes, args.json.as_deref())
}

async fn run_micro(args: MicroArgs) -> Result<()> {
    let bar = progress();
    let meta = Meta::now().await;
    let costs = micro::micro(&args, &bar).await?;
    bar.finish_and_clear();
    output::line(&report::markdown::parts(&costs));
    write(meta, costs, args.json.as_deref())
}

fn write<T: Serialize>(meta: Meta, found: T, file: Option<&Path>) -> Result<()> {
    match file {
        Some(file) => meta.with(found).write(file),
        None => Ok(()),
    }
}

/// A bar, where there is a terminal to draw it on.
pub(crate) fn progress() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let bar = ProgressBar::new(0);
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed_precise} {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}
