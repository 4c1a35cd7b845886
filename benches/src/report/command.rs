//! `report`: runs what was asked for, and writes what it found.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{Args, ValueEnum};
use tokio::process::Command;

use super::{All, marked, pages, summary};
use crate::error::{Error, Result};
use crate::output;
use crate::pairs::own;

/// What to run, and where to write.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReportArgs {
    /// What to measure; what is not named keeps the figures that it has
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Part::value_variants().to_vec())]
    part: Vec<Part>,
    /// Fewer and shorter turns: all of it within five minutes
    #[arg(long)]
    quick: bool,
    /// Measure nothing: write the pages anew from the figures that are there
    #[arg(long)]
    render: bool,
    /// Folder for pages, plots and figures
    #[arg(long, default_value = "docs/performance")]
    out: PathBuf,
    /// Files whose marked tables are written anew
    #[arg(long, value_delimiter = ',', default_values_t = ["README.md".to_owned(), "benches/README.md".to_owned()])]
    readme: Vec<String>,
}

/// A part of the report: a subcommand that can also be called by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Pairs of proxies on loopback
    Compare,
    /// The same pairs over bad links
    Lossy,
    /// A control node and many sidecars
    Scale,
    /// The parts by themselves
    Micro,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Lossy => "lossy",
            Self::Scale => "scale",
            Self::Micro => "micro",
        }
    }
}

/// Measures and writes. A part that cannot be measured here keeps the figures that it has, and is named.
pub(crate) async fn report(args: &ReportArgs) -> Result<()> {
    std::fs::create_dir_all(&args.out)
        .map_err(Error::io(format!("make {}", args.out.display())))?;
    let parts = if args.render { &[][..] } else { &args.part };
    for (index, part) in parts.iter().enumerate() {
        output::note(&format!(
            "part {} of {}: {}",
            index + 1,
            parts.len(),
            part.name()
        ));
        if let Err(error) = measure(*part, args).await {
            output::note(&format!("{}: not measured: {error}", part.name()));
        }
    }
    let all = All::read(&args.out)?;
    for (name, text) in pages::all(&all)? {
        write(&args.out.join(name), &text)?;
    }
    for file in &args.readme {
        let file = Path::new(file);
        let old =
            std::fs::read_to_string(file).map_err(Error::io(format!("read {}", file.display())))?;
        let new = marked::replace(&old, |name| summary::table(name, &all)).map_err(|reason| {
            Error::File {
                path: file.to_owned(),
                reason,
            }
        })?;
        write(file, &new)?;
    }
    output::line(&super::bars::table(&all));
    Ok(())
}

/// Runs a part as a process of its own, since `compare` moves into a namespace.
async fn measure(part: Part, args: &ReportArgs) -> Result<()> {
    let file = args.out.join(format!("{}.json", part.name()));
    let mut command = Command::new(own::myself()?);
    command.arg(part.name()).arg("--json").arg(&file);
    if args.quick {
        command.arg("--quick");
    }
    // The tables go into the pages; bars and remarks go to standard error.
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command
        .status()
        .await
        .map_err(Error::io(format!("run {}", part.name())))?;
    match status.success() {
        true => Ok(()),
        false => Err(Error::Protocol(format!("it ended with {status}"))),
    }
}

fn write(file: &Path, text: &str) -> Result<()> {
    std::fs::write(file, text).map_err(Error::io(format!("write {}", file.display())))
}
