//! The parts by themselves: time, and instructions by callgrind, with a baseline and an alarm.

mod count;
pub(crate) mod scenarios;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use clap::Args;
use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};

pub(crate) use count::repeat;

use crate::error::{Error, Result};
use crate::output;
use crate::stats::Spread;
use scenarios::{ALL, Scenario};

/// More instructions than the baseline by this share are an alarm.
const ALARM: f64 = 0.02;
/// How long one sample of a time takes at least.
const SAMPLE: Duration = Duration::from_millis(20);

/// What to measure of the parts.
#[derive(Debug, Clone, Args)]
pub(crate) struct MicroArgs {
    /// Compare the instruction counts with this file; more than 2 % above it is an error
    #[arg(long, conflicts_with = "write_baseline")]
    check: Option<PathBuf>,
    /// Write the instruction counts into this file, to be compared with
    #[arg(long)]
    write_baseline: Option<PathBuf>,
    /// Write all figures as JSON into this file
    #[arg(long)]
    pub(crate) json: Option<PathBuf>,
    /// Fewer samples of the times
    #[arg(long)]
    pub(crate) quick: bool,
}

/// What a part costs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) name: String,
    /// Time of one, ns.
    pub(crate) ns: Option<Spread>,
    /// Instructions of one; nothing where valgrind is not.
    pub(crate) instructions: Option<u64>,
    /// Whether that depends on the processor's features.
    pub(crate) by_processor: bool,
}

/// Instruction counts by name.
type Counts = BTreeMap<String, u64>;

/// Counts to be compared with. They are of one compiler: another makes others of the same source.
#[derive(Debug, Serialize, Deserialize)]
struct Baseline {
    rustc: String,
    counts: Counts,
}

/// Measures every part.
pub(crate) async fn micro(args: &MicroArgs, bar: &ProgressBar) -> Result<Vec<Cost>> {
    let counts_only = args.check.is_some() || args.write_baseline.is_some();
    bar.set_length(ALL.len() as u64);
    let mut costs = Vec::new();
    for scenario in ALL {
        bar.set_message(scenario.name);
        let instructions = match count::instructions(scenario).await {
            Ok(count) => Some(count),
            // What is asked for by name must be there; in a report, a gap says so.
            Err(error) if counts_only => return Err(error),
            Err(error) => {
                bar.println(format!("{}: not counted: {error}", scenario.name));
                None
            }
        };
        let samples = if args.quick { 5 } else { 15 };
        costs.push(Cost {
            name: scenario.name.to_owned(),
            ns: (!counts_only).then(|| time(scenario, samples)).flatten(),
            instructions,
            by_processor: scenario.by_processor,
        });
        bar.inc(1);
    }
    if let Some(file) = &args.write_baseline {
        let baseline = Baseline {
            rustc: compiler().await,
            counts: counts(&costs),
        };
        let text = serde_json::to_string_pretty(&baseline)
            .map_err(|error| Error::Protocol(error.to_string()))?;
        std::fs::write(file, text + "\n")
            .map_err(Error::io(format!("write {}", file.display())))?;
    }
    if let Some(file) = &args.check {
        let (baseline, rustc) = (read(file)?, compiler().await);
        match baseline.rustc == rustc {
            true => check(&baseline.counts, &counts(&costs))?,
            false => output::note(&format!(
                "the baseline is of {}, this is {rustc}: not compared",
                baseline.rustc
            )),
        }
    }
    Ok(costs)
}

/// Counts that are the same on every processor.
fn counts(costs: &[Cost]) -> Counts {
    let stable = costs.iter().filter(|cost| !cost.by_processor);
    stable
        .filter_map(|cost| Some((cost.name.clone(), cost.instructions?)))
        .collect()
}

/// The compiler, as it calls itself.
async fn compiler() -> String {
    let said = crate::meta::said("rustc", &["--version"]).await;
    said.unwrap_or_else(|| "an unknown compiler".to_owned())
}

fn read(file: &Path) -> Result<Baseline> {
    let text = std::fs::read(file).map_err(Error::io(format!("read {}", file.display())))?;
    serde_json::from_slice(&text).map_err(|error| Error::File {
        path: file.to_owned(),
        reason: error.to_string(),
    })
}

/// The alarm: every part that needs more than it did, and every one that the baseline does not know.
fn check(baseline: &Counts, now: &Counts) -> Result<()> {
    let complaint = |(name, count): (&String, &u64)| match baseline.get(name) {
        None => Some(format!("'{name}' is not in the baseline")),
        Some(before) => {
            let change = *count as f64 / *before as f64 - 1.0;
            let text = format!(
                "'{name}': {before} → {count} instructions ({:+.1} %)",
                change * 100.0
            );
            (change > ALARM).then_some(text)
        }
    };
    let complaints: Vec<String> = now.iter().filter_map(complaint).collect();
    match complaints.is_empty() {
        true => Ok(()),
        false => Err(Error::Slower(complaints.join("; "))),
    }
}

/// Time of one, over samples of many.
fn time(scenario: &Scenario, samples: u32) -> Option<Spread> {
    let mut once = (scenario.make)();
    let started = Instant::now();
    let mut batch = 0_u32;
    while started.elapsed() < SAMPLE {
        once();
        batch += 1;
    }
    let sample = |_| {
        let started = Instant::now();
        (0..batch).for_each(|_| once());
        started.elapsed().as_nanos() as f64 / f64::from(batch)
    };
    Spread::of((0..samples).map(sample).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_does_what_it_says() {
        // A part that fails panics.
        for scenario in ALL
            .iter()
            .filter(|scenario| !scenario.name.contains("10,000"))
        {
            let mut once = (scenario.make)();
            once();
            once();
        }
    }

    #[test]
    fn two_per_cent_more_is_an_alarm_and_less_is_none() {
        let of = |count| Counts::from([("a".to_owned(), count)]);
        assert!(check(&of(1_000), &of(1_019)).is_ok());
        assert!(check(&of(1_000), &of(500)).is_ok());
        let said = check(&of(1_000), &of(1_021)).unwrap_err().to_string();
        assert!(said.contains("1000 → 1021"), "{said}");
        let said = check(&Counts::new(), &of(1)).unwrap_err().to_string();
        assert!(said.contains("not in the baseline"), "{said}");
    }
}
