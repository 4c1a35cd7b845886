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

/// Seeds 68 and 124: a process that was told to stop while it stood still goes on only to end. Seed 233: its service
/// manager was told to start it again before that, which will be another process. Faults of the harness, which took
/// both for a process that runs, and its closed listener for a broken promise.
#[test]
fn a_process_that_was_told_to_stop_does_not_count_as_running_when_it_goes_on() {
    let told_to_start = [Duration::from_secs(3), Duration::from_secs(20)];
    for again in told_to_start {
        let mut steps = vec![
            at(1, Fault::Pause(2, true)),
            at(2, Fault::Stop(2)),
            (again, Fault::Start(2)),
            at(6, Fault::Pause(2, false)),
        ];
        steps.sort_by_key(|(at, _)| *at);
        passes(steps);
    }
}

/// Seeds 5 and others, once tasks at rest were counted by what they are for: sidecars kept the connections to their
/// application that a flood had opened for as long as a newer one was in use.
#[test]
fn a_flood_leaves_no_idle_connections_to_the_application() {
    passes(vec![
        at(2, Fault::Flood(1, 150)),
        at(3, Fault::Flood(2, 150)),
    ]);
}

/// Seed 1485: a process that stood still was killed and followed by another one, which was taken for ready when its
/// predecessor would have gone on. A fault of the harness.
#[test]
fn a_successor_of_a_process_that_stood_still_does_not_count_as_running_before_it_is_ready() {
    passes(vec![
        at(1, Fault::Pause(2, true)),
        at(2, Fault::Revoke(2)),
        at(4, Fault::Isolate(0, true)),
        at(7, Fault::Pause(2, false)),
        at(15, Fault::Isolate(0, false)),
    ]);
}

/// What is on its way to an application that does not read stays with whoever sends it, but for a stream's window.
#[test]
fn long_uploads_to_who_does_not_read_fill_no_memory() {
    passes(vec![
        at(2, Fault::Upload(1, 7)),
        at(3, Fault::Upload(2, 7)),
        at(4, Fault::Upload(3, 7)),
    ]);
}

/// Seed 80: a push that was still being stored counted as one that had never come, and the next one followed it
/// before anybody knew. A fault of the harness.
#[test]
fn a_push_that_is_still_being_stored_when_the_control_node_stops_is_found_afterwards() {
    passes(vec![
        at(1, Fault::SlowDisk(0, Duration::from_millis(2_930))),
        at(2, Fault::Push(1)),
        at(3, Fault::Push(2)),
        at(8, Fault::Stop(0)),
        at(9, Fault::Start(0)),
        at(25, Fault::SlowDisk(0, Duration::ZERO)),
    ]);
}

/// Seed 371: while the control node could store nothing, waits between renewals grew longer than the certificates had
/// to live, and they ended though the control node was well again.
#[test]
fn certificates_are_renewed_in_time_when_the_control_node_is_well_again_shortly_before_they_end() {
    passes(vec![
        at(20, Fault::FullDisk(0, true)),
        at(46, Fault::FullDisk(0, false)),
    ]);
}
