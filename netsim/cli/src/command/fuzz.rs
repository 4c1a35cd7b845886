//! `weft-netsim fuzz`: looks for seeds under which weft breaks a promise.

use std::process::ExitCode;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use weft_netsim_harness::{Failure as Broken, FuzzReport, Fuzzing, Progress, Settings, Summary};

use crate::args::FuzzArgs;
use crate::failure::Failure;
use crate::output::{note, result};

/// Lines of a timeline that are printed unless all are asked for.
const TAIL: usize = 60;

/// The bar, where somebody looks.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Of so many seeds, under a title.
    pub(super) fn new(seeds: u64, title: &str) -> Self {
        let bar = ProgressBar::with_draw_target(Some(seeds), ProgressDrawTarget::stderr());
        let template = "{msg} {bar:40} {pos}/{len} seeds, {elapsed}, {eta} left";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(title.to_owned());
        Self(bar)
    }

    /// Wipes it.
    pub(super) fn finish(&self) {
        self.0.finish_and_clear();
    }
}

impl Progress for Bar {
    fn done(&self, outcome: &Result<Summary, Box<Broken>>) {
        self.0.inc(1);
        if let Err(broken) = outcome {
            let line = format!("seed {}: {}", broken.seed, broken.what);
            // Without a terminal there is no bar, but news there is.
            if self.0.is_hidden() {
                note(&line);
            } else {
                self.0.println(line);
            }
        }
    }
}

/// Runs the seeds.
#[allow(
    clippy::disallowed_methods,
    reason = "the real clock: how long the runs took"
)]
pub(super) fn fuzz(args: &FuzzArgs) -> Result<ExitCode, Failure> {
    #[cfg(feature = "mutants")]
    weft_netsim_harness::activate(args.mutant);
    let fuzzing = Fuzzing {
        seeds: args.first..args.first.saturating_add(args.seeds),
        jobs: args.jobs.into(),
        keep_going: args.keep_going,
        settings: Settings {
            faults: args.faults,
            ..Settings::default()
        },
    };
    let bar = Bar::new(args.seeds, "fuzz");
    let began = Instant::now();
    let report = weft_netsim_harness::fuzz(&fuzzing, &bar);
    bar.finish();
    result(&told(&report, began.elapsed().as_secs_f64(), args.timeline))?;
    Ok(if report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn told(report: &FuzzReport, took: f64, whole: bool) -> String {
    let mut text = String::new();
    for broken in &report.failures {
        let lines: Vec<_> = broken.timeline.lines().collect();
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
            broken.seed, broken.what, broken.replay
        ));
    }
    let done = report.passed + report.failures.len() as u64;
    let virtual_s = report.virtual_time.as_secs_f64();
    text.push_str(&format!(
        "{} of {done} seeds passed: {virtual_s:.0} s of mesh life in {took:.1} s ({:.0} x), {:.2} s a seed, \
         {} requests, right again {:.1} s after the faults at the latest, at most {} tasks ({} at rest) and \
         {:.1} MB ({:.1} at rest) a process and {} datagrams in a socket\n",
        report.passed,
        virtual_s / took.max(0.001),
        took / (done.max(1) as f64),
        report.requests,
        report.slowest.as_secs_f64(),
        report.most_tasks,
        report.tasks_at_rest,
        report.most_bytes as f64 / 1e6,
        report.bytes_at_rest as f64 / 1e6,
        report.fullest_socket,
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_with_its_end_and_how_to_run_it_again() {
        let timeline: Vec<_> = (0..100).map(|n| format!("line {n}")).collect();
        let report = FuzzReport {
            failures: vec![Broken {
                seed: 7,
                what: "a promise".to_owned(),
                timeline: timeline.join("\n"),
                replay: "cargo run".to_owned(),
            }],
            ..FuzzReport::default()
        };
        let text = told(&report, 1.0, false);
        assert!(text.starts_with("… 40 lines before\nline 40\n"), "{text}");
        assert!(
            text.contains("seed 7: a promise\nreplay: cargo run\n"),
            "{text}"
        );
        assert!(text.contains("0 of 1 seeds passed"), "{text}");
        assert!(told(&report, 1.0, true).starts_with("line 0\n"));
    }
}
