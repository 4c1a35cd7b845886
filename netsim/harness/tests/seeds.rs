//! The short run, in every `cargo test`: 200 seeds, and some of them twice.
#![allow(clippy::unwrap_used)]

use weft_netsim_harness::{
    Fuzzing, NoProgress, Settings, Summary, first_difference, fuzz, run_seed,
};

/// Tests of one program share its cores; this one takes them all.
const JOBS: usize = 2;

#[test]
fn two_hundred_seeds_keep_every_promise() {
    let count = count();
    let fuzzing = Fuzzing {
        seeds: 0..count,
        jobs: JOBS,
        keep_going: false,
        settings: Settings::default(),
    };
    let report = fuzz(&fuzzing, &NoProgress);
    if let Some(failure) = report.failures.first() {
        panic!("{failure}");
    }
    assert_eq!(report.passed, count);
    assert!(report.requests > count * 100, "hardly anything was asked");
}

/// Fewer where time is short: `WEFT_TEST_SEEDS`.
fn count() -> u64 {
    match std::env::var("WEFT_TEST_SEEDS") {
        Ok(count) => count.parse().expect("WEFT_TEST_SEEDS is a number of seeds"),
        Err(_) => 200,
    }
}

fn run(seed: u64) -> Summary {
    let settings = Settings {
        keep_lines: true,
        ..Settings::default()
    };
    let summary = run_seed(seed, &settings).unwrap_or_else(|failure| panic!("{failure}"));
    // What a program makes once is on the account of whoever needed it first.
    Summary {
        most_bytes: 0,
        bytes_at_rest: 0,
        ..summary
    }
}

/// Beside other runs in the same program, as `fuzz` has them: what one run draws must not depend on the others.
#[test]
fn a_seed_repeats_to_the_byte_and_another_one_does_not() {
    let seeds = [1, 2, 3, 4];
    let both = std::thread::scope(|scope| {
        let again = scope.spawn(|| seeds.map(run));
        (seeds.map(run), again.join().unwrap())
    });
    for (one, again) in both.0.iter().zip(&both.1) {
        assert!(
            one.repeats_payloads,
            "the linker has not put aws-lc's randomness under the seed: a wrong symbol prefix?"
        );
        if one.hashes != again.hashes {
            let part = first_difference(&one.lines, &again.lines);
            panic!(
                "seed {}: {:?} and {:?} part at {part:#?}",
                one.seed, one.hashes, again.hashes
            );
        }
        assert_eq!(one, again);
    }
    let [one, other, ..] = &both.0;
    for (a, b) in [
        (&one.hashes.datagrams, &other.hashes.datagrams),
        (&one.hashes.payload, &other.hashes.payload),
        (&one.hashes.decisions, &other.hashes.decisions),
    ] {
        assert_ne!(a, b, "the control: another seed is another run");
    }
}
