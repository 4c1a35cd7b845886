//! What seeds have found, as faults of their own: a seed means something else as soon as schedules are drawn
//! differently.

use super::*;

fn passes(steps: Vec<Step>) {
    let settings = Settings {
        length: Duration::from_secs(30),
        ..Settings::default()
    };
    if let Err(failure) = run_steps(1, &settings, steps) {
        panic!("{failure}");
    }
}

fn at(seconds: u64, fault: Fault) -> Step {
    (Duration::from_secs(seconds), fault)
}

/// Seed 37: a wait after a failed renewal was reckoned by the wall clock. It began while that was ahead, and so
/// did not end before the certificate did.
#[test]
fn a_clock_that_was_ahead_for_a_while_does_not_put_renewal_off() {
    passes(vec![
        at(1, Fault::Clock(6, 141_507)),
        at(15, Fault::Clock(6, 0)),
    ]);
}

/// Seed 144: a process that stood still was told to stop, and its service manager started a successor beside it,
/// which found the state directory's lock held for ever. A fault of the harness, not of weft.
#[test]
fn a_successor_waits_until_its_predecessor_has_ended() {
    passes(vec![
        at(1, Fault::Pause(2, true)),
        at(2, Fault::Stop(2)),
        at(6, Fault::Start(2)),
        at(20, Fault::Pause(2, false)),
    ]);
}
