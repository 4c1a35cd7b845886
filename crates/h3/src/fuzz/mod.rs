//! A fuzzer for everything that reads a peer's bytes, on stable Rust and inside the test binary.
//!
//! Inputs are mutated from seeds, from a small corpus (`crates/h3/corpus`) and from whatever made a target
//! behave in a way that was not seen before: a target describes what it saw as a list of labels, and an
//! input in which one label follows another for the first time is kept to be mutated further. A target checks its own invariants: whatever comes,
//! nothing panics, what is kept stays within its bound, and how the bytes were cut changes nothing.
//!
//! An ordinary test run does a few thousand inputs. For more:
//!
//! ```console
//! WEFT_FUZZ_CPU_SECONDS=600 CARGO_PROFILE_DEV_OPT_LEVEL=3 cargo test -p weft-h3 --lib fuzz:: -- --nocapture
//! ```
//!
//! With `WEFT_FUZZ_KEEP=1` what was found is added to the corpus.

mod mutate;
mod seeds;
mod targets;

use std::collections::HashSet;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use mutate::Random;

/// What a target saw, in labels of which there are some dozens.
pub(crate) type Seen = Vec<&'static str>;

/// Inputs of an ordinary test run, for each target.
const INPUTS: u64 = 3000;
/// Inputs between two looks at the clock.
const ROUND: u64 = 1000;
/// Most inputs that are kept to be mutated further.
const MAX_POOL: usize = 4096;
/// What is kept of them in the repository.
const MAX_CORPUS: usize = 64;
const MAX_CORPUS_LEN: usize = 160;

/// Runs one target. `read` gets an input and where to cut it.
fn fuzz(name: &str, seeds: Vec<Vec<u8>>, read: impl Fn(&[u8], &[usize]) -> Seen) {
    let mut pool = seeds;
    pool.extend(corpus(name));
    let mut random = Random::new(name);
    let mut behaviours = HashSet::new();
    for input in &pool {
        is_new(&read(input, &random.cuts()), &mut behaviours);
    }
    let mut found = corpus(name);
    let (start, budget) = (cpu_time(), budget());
    let mut inputs = 0u64;
    while match budget {
        Some(budget) => cpu_time() - start < budget,
        None => inputs < INPUTS,
    } {
        for _ in 0..ROUND {
            let input = random.mutated(&pool);
            if is_new(&read(&input, &random.cuts()), &mut behaviours) && pool.len() < MAX_POOL {
                found.push(input.clone());
                pool.push(input);
            }
        }
        inputs += ROUND;
    }
    if let Some(budget) = budget {
        let (seconds, count) = (budget.as_secs(), behaviours.len());
        println!("{name}: {seconds} s of CPU, {inputs} inputs, {count} behaviours");
        if std::env::var_os("WEFT_FUZZ_KEEP").is_some() {
            keep(name, found);
        }
    }
}

/// Whether two labels follow each other here that never did before.
fn is_new(seen: &Seen, behaviours: &mut HashSet<[&'static str; 2]>) -> bool {
    let first = ["", seen.first().copied().unwrap_or_default()];
    let mut new = behaviours.insert(first);
    for pair in seen.windows(2) {
        new |= behaviours.insert([pair[0], pair[1]]);
    }
    new
}

/// CPU time to spend on each target, when there is something to spend.
fn budget() -> Option<Duration> {
    let seconds = std::env::var("WEFT_FUZZ_CPU_SECONDS").ok()?;
    Some(Duration::from_secs(
        seconds.parse().expect("a number of seconds"),
    ))
}

/// CPU time of this thread, so that a busy machine does not shorten a run.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|n| n.parse().ok());
    Duration::from_nanos(nanos.expect("a long run needs Linux's /proc"))
}

fn corpus_file(name: &str) -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus");
    dir.join(name).with_extension("hex")
}

/// One input a line, in hexadecimal.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let text = std::fs::read_to_string(corpus_file(name)).unwrap_or_default();
    let byte = |pair: &[u8]| {
        let text = str::from_utf8(pair).expect("hexadecimal");
        u8::from_str_radix(text, 16).expect("hexadecimal")
    };
    let bytes = |line: &str| line.as_bytes().chunks(2).map(byte).collect();
    text.lines().map(bytes).collect()
}

/// Writes the shortest of what was there and what was found.
fn keep(name: &str, mut found: Vec<Vec<u8>>) {
    found.retain(|input| input.len() <= MAX_CORPUS_LEN);
    found.sort_by_key(Vec::len);
    found.truncate(MAX_CORPUS);
    let mut text = String::new();
    for input in found {
        for byte in input {
            write!(text, "{byte:02x}").expect("a string takes everything");
        }
        text.push('\n');
    }
    std::fs::write(corpus_file(name), text).expect("the corpus is written");
}
