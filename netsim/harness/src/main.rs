//! `weft-netsim-fuzz`: looks for seeds under which weft breaks a promise.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use weft_netsim_harness::{Failure, FuzzReport, Fuzzing, Progress, Settings, Summary, fuzz};

/// Runs a small mesh in virtual time under random faults, seed after seed, and checks what must hold.
#[derive(Debug, Parser)]
#[command(name = "weft-netsim-fuzz", version)]
struct Options {
    /// How many seeds.
    #[arg(long, default_value_t = 200)]
    seeds: u64,
    /// How many at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Faults in each run.
    #[arg(long, default_value_t = Settings::default().faults)]
    faults: u32,
    /// Go on after a failure.
    #[arg(long)]
    keep_going: bool,
    /// Print the whole timeline of a failure, not only its end.
    #[arg(long)]
    timeline: bool,
}

struct Bar(ProgressBar);

impl Progress for Bar {
    fn done(&self, outcome: &Result<Summary, Box<Failure>>) {
        self.0.inc(1);
        if let Err(failure) = outcome {
            self.0
                .println(format!("seed {}: {}", failure.seed, failure.what));
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one real clock here: how long the runs took"
)]
fn main() -> ExitCode {
    let options = Options::parse();
    let seeds = options.first..options.first.saturating_add(options.seeds);
    let bar = if std::io::stderr().is_terminal() {
        ProgressBar::new(options.seeds)
    } else {
        ProgressBar::hidden()
    };
    if let Ok(style) = ProgressStyle::with_template("{bar:40} {pos}/{len} seeds, {eta} left") {
        bar.set_style(style);
    }
    let fuzzing = Fuzzing {
        seeds,
        jobs: options.jobs,
        keep_going: options.keep_going,
        settings: Settings {
            faults: options.faults,
            ..Settings::default()
        },
    };
    let began = Instant::now();
    let report = fuzz(&fuzzing, &Bar(bar.clone()));
    bar.finish_and_clear();
    let text = told(&report, began.elapsed().as_secs_f64(), options.timeline);
    // Nobody reads it any more: the exit code says it too.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
    if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Lines of a timeline that are printed unless all are asked for.
const TAIL: usize = 60;

fn told(report: &FuzzReport, took: f64, whole: bool) -> String {
    let mut text = String::new();
    for failure in &report.failures {
        let lines: Vec<_> = failure.timeline.lines().collect();
        let skipped = if whole {
            0
        } else {
            lines.len().saturating_sub(TAIL)
        };
        if skipped > 0 {
            text.push_str(&format!("… {skipped} lines before\n"));
        }
        for line in &lines[skipped..] {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str(&format!(
            "seed {}: {}\nreplay: {}\n\n",
            failure.seed, failure.what, failure.replay
        ));
    }
    let done = report.passed + report.failures.len() as u64;
    let virtual_s = report.virtual_time.as_secs_f64();
    text.push_str(&format!(
        "{} of {done} seeds passed: {:.0} s of mesh life in {took:.1} s ({:.0} x), {:.2} s a seed, {} requests, \
         right again {:.1} s after the faults at the latest\n",
        report.passed,
        virtual_s,
        virtual_s / took.max(0.001),
        took / (done.max(1) as f64),
        report.requests,
        report.slowest.as_secs_f64()
    ));
    text
}
