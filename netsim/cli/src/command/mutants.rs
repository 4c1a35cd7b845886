//! `weft-netsim mutants`: whether the checks of `fuzz` notice that weft is broken.

use std::process::ExitCode;
use std::time::Instant;

use weft_netsim_harness::{FuzzReport, Fuzzing, Mutant, Settings};

use super::fuzz::Bar;
use crate::args::MutantsArgs;
use crate::failure::Failure;
use crate::output::result;

/// Characters of what was noticed that are shown.
const SHOWN: usize = 150;

/// Seeds to try where the known one notices nothing any more.
const NEAR: u64 = 100;

/// Runs seeds against each until one fails.
#[allow(
    clippy::disallowed_methods,
    reason = "the real clock: how long the runs took"
)]
pub(super) fn mutants(args: &MutantsArgs) -> Result<ExitCode, Failure> {
    let all: Vec<Mutant> = if args.names.is_empty() {
        Mutant::ALL.to_vec()
    } else {
        args.names.clone()
    };
    let mut missed = 0;
    for mutant in all {
        weft_netsim_harness::activate(Some(mutant));
        let began = Instant::now();
        let (tried, report) = notice(mutant, args);
        weft_netsim_harness::activate(None);
        let took = began.elapsed().as_secs_f64();
        let line = match report.failures.first() {
            Some(broken) => {
                let what: String = broken.what.chars().take(SHOWN).collect();
                format!(
                    "{:<24} noticed by seed {:>4} ({took:.0} s): {what}",
                    mutant.name(),
                    broken.seed
                )
            }
            None => {
                missed += 1;
                format!("{:<24} NOT NOTICED {tried} ({took:.0} s)", mutant.name())
            }
        };
        result(&line)?;
    }
    if missed == 0 {
        return Ok(ExitCode::SUCCESS);
    }
    Err(Failure::Failed(format!(
        "{missed} broken variants were not noticed: the checks have a hole, or a fault is missing"
    )))
}

/// Runs seeds against the variant that is active, until one notices it: the known one first, and some others where
/// seeds mean something else since. In words, which were tried.
fn notice(mutant: Mutant, args: &MutantsArgs) -> (String, FuzzReport) {
    let first = known(mutant);
    let (begin, more) = match args.known {
        true => (first..first + 1, Some(0..NEAR)),
        false => (0..args.seeds, None),
    };
    let tried = match args.known {
        true => format!("by seed {first} and in {NEAR} others"),
        false => format!("in {} seeds", args.seeds),
    };
    let mut last = FuzzReport::default();
    for seeds in std::iter::once(begin).chain(more) {
        let bar = Bar::new(seeds.end - seeds.start, mutant.name());
        let fuzzing = Fuzzing {
            seeds,
            jobs: args.jobs.into(),
            keep_going: false,
            settings: Settings::default(),
        };
        last = weft_netsim_harness::fuzz(&fuzzing, &bar);
        bar.finish();
        if !last.failures.is_empty() {
            break;
        }
    }
    (tried, last)
}

/// A seed that notices it. What seeds mean changes with the schedule's drawing.
fn known(mutant: Mutant) -> u64 {
    match mutant {
        Mutant::BelievesTheCaller
        | Mutant::AppliesInTwoSteps
        | Mutant::KeepsTokens
        | Mutant::LogsItsKey => 0,
        Mutant::DropsInSilence => 2,
        Mutant::LeaksAtReconnect => 2,
        Mutant::ForgetsRevocation | Mutant::HidesTheReason => 3,
        Mutant::ReadsAhead => 10,
        Mutant::RetriesAPost => 14,
        Mutant::CommitsInMemory => 39,
        Mutant::ForgetsExpiry => 46,
        Mutant::AcknowledgesUnsaved => 58,
        Mutant::WaitsByTheWallClock => 174,
    }
}
