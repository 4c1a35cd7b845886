//! `weft-netsim selftest`: whether links keep their promises on this machine.
//!
//! Each check builds a mesh of two namespaces, sends numbered packets through the kernel from one to the
//! other, and compares what came with what was asked of the link and with what the pure model says. A bare
//! timer runs all the while: where it is late, the machine took the CPU away, and no link can mend that.

mod checks;
mod stage;
mod traffic;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use weft_netsim_tun::{BareTimer, LatenessReport, Priority, preflight};

use crate::args::SelftestArgs;
use crate::failure::Failure;
use crate::lease::Lease;
use crate::output::{lateness_in_words, show};
use checks::{Check, Extent};
use stage::Stage;

/// What the self-test found.
#[derive(Debug, Serialize)]
struct Findings {
    passed: bool,
    seed: u64,
    kernel: String,
    cpus: usize,
    priority: Option<Priority>,
    checks: Vec<Check>,
    /// How late a thread woke that did nothing else, over the same time.
    bare_timer: LatenessReport,
}

/// Beyond this median the machine, not the link, decides about a delay of 0.3 ms.
const QUIET_P50_MS: f64 = 0.15;
/// Beyond this share of wake-ups that are over a millisecond late the machine is too busy to judge a link by.
const QUIET_OVER_1MS: f64 = 0.01;

/// Runs all checks and shows what they found.
///
/// # Errors
/// [`Failure::Failed`] if a promise was not kept, or what keeps the test from running.
pub(crate) fn run(args: &SelftestArgs) -> Result<(), Failure> {
    preflight()?;
    let extent = if args.quick {
        Extent::QUICK
    } else {
        Extent::FULL
    };
    let lease = Lease::take()?;
    let stage = Stage::new(&lease, args.seed);
    let bar = progress();
    let timer = BareTimer::start()?;
    let checks = checks::all(&stage, &extent, &bar)?;
    let bare_timer = timer.stop();
    bar.finish_and_clear();
    let findings = Findings {
        passed: checks.iter().all(|check| check.passed),
        seed: args.seed,
        kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned()),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        priority: checks.first().map(|check| check.priority),
        checks,
        bare_timer,
    };
    show(args.output, &findings, || table(&findings))?;
    verdict(&findings)
}

/// Success, or how many promises were not kept and whose fault that seems to be.
fn verdict(findings: &Findings) -> Result<(), Failure> {
    if findings.passed {
        return Ok(());
    }
    let failed = findings.checks.iter().filter(|check| !check.passed).count();
    let bare = &findings.bare_timer;
    let next = if bare.p50_ms > QUIET_P50_MS || bare.over_1ms > QUIET_OVER_1MS {
        "the bare timer was late, too: repeat it when the machine is quieter"
    } else {
        "the bare timer was on time, so this is the link's own fault: report it with `-o json`"
    };
    Err(Failure::Failed(format!(
        "{failed} of {} checks failed; {next}",
        findings.checks.len()
    )))
}

/// A bar on a terminal, nothing elsewhere.
fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}");
    let bar = ProgressBar::new(0);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

fn table(findings: &Findings) -> String {
    let mut text = format!(
        "{:<42}{:>8}{:>10}{:>8}  {:<8}link released late, ms\n",
        "check", "asked", "measured", "within", ""
    );
    for check in &findings.checks {
        text += &format!(
            "{:<42}{:>8.2}{:>10.3}{:>8.2}  {:<8}{}\n",
            check.name,
            check.asked,
            check.measured,
            check.within,
            if check.passed { "ok" } else { "FAILED" },
            lateness_in_words(&check.lateness),
        );
        if let Some(note) = &check.note {
            text += &format!("    {note}\n");
        }
    }
    text += &format!(
        "bare timer, same time: {} ({:.2} % over 1 ms)\nkernel {}, {} CPUs, seed {}, {}\n",
        lateness_in_words(&findings.bare_timer),
        findings.bare_timer.over_1ms * 100.0,
        findings.kernel,
        findings.cpus,
        findings.seed,
        match findings.priority {
            Some(Priority::RealTime) => "real-time priority",
            _ => "ordinary priority: no real-time scheduling here",
        }
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use weft_netsim_tun::Lateness;

    fn findings(passed: bool, bare_timer_late: Duration) -> Findings {
        let mut lateness = Lateness::new();
        lateness.record(bare_timer_late);
        Findings {
            passed,
            seed: 1,
            kernel: "test".to_owned(),
            cpus: 2,
            priority: None,
            checks: Vec::new(),
            bare_timer: lateness.report(),
        }
    }

    #[test]
    fn a_broken_promise_is_a_failure_and_the_bare_timer_says_whose() {
        let on_time = Duration::from_micros(20);
        let late = Duration::from_millis(10);
        assert!(verdict(&findings(true, late)).is_ok());
        let own = verdict(&findings(false, on_time)).unwrap_err().to_string();
        assert!(own.contains("the link's own fault"), "{own}");
        let machine = verdict(&findings(false, late)).unwrap_err().to_string();
        assert!(machine.contains("quieter"), "{machine}");
    }
}
