//! The short run, in every `cargo test`: 200 seeds, and one of them twice.
#![allow(clippy::unwrap_used)]

use weft_netsim_harness::{
    Fuzzing, NoProgress, Settings, Summary, first_difference, fuzz, run_seed,
};

/// Tests of one program share its cores; this one takes them all.
const JOBS: usize = 2;

#[test]
fn two_hundred_seeds_keep_every_promise() {
    let fuzzing = Fuzzing {
        seeds: 0..200,
        jobs: JOBS,
        keep_going: false,
        settings: Settings::default(),
    };
    let report = fuzz(&fuzzing, &NoProgress);
    if let Some(failure) = report.failures.first() {
        panic!("{failure}");
    }
    assert_eq!(report.passed, 200);
    assert!(report.requests > 200 * 100, "hardly anything was asked");
}

fn run(seed: u64) -> Summary {
    let settings = Settings {
        keep_lines: true,
        ..Settings::default()
    };
    run_seed(seed, &settings).unwrap_or_else(|failure| panic!("{failure}"))
}

#[test]
fn a_seed_repeats_to_the_byte_and_another_one_does_not() {
    let (one, again, other) = (run(1), run(1), run(2));
    assert!(
        one.repeats_payloads,
        "the linker has not put aws-lc's randomness under the seed: a wrong symbol prefix?"
    );
    if one.hashes != again.hashes {
        let part = first_difference(&one.lines, &again.lines);
        panic!("{:?} and {:?} part at {part:#?}", one.hashes, again.hashes);
    }
    assert_eq!(one, again);
    for (a, b) in [
        (&one.hashes.datagrams, &other.hashes.datagrams),
        (&one.hashes.payload, &other.hashes.payload),
        (&one.hashes.decisions, &other.hashes.decisions),
    ] {
        assert_ne!(a, b, "the control: another seed is another run");
    }
}
