//! Times of the parts: `cargo bench -p weft-benches`.
#![allow(missing_docs, unreachable_pub, reason = "a benchmark, not a library")]

#[path = "../src/micro/scenarios.rs"]
mod scenarios;

fn main() {
    divan::main();
}

#[divan::bench(args = names())]
fn part(bencher: divan::Bencher<'_, '_>, name: &str) {
    let scenario = scenarios::ALL.iter().find(|scenario| scenario.name == name);
    let once = (scenario.expect("a name of the list").make)();
    bencher.bench_local(once);
}

fn names() -> impl Iterator<Item = &'static str> {
    // Counts depend on the processor, times always do.
    scenarios::ALL.iter().map(|scenario| {
        let _ = scenario.by_processor;
        scenario.name
    })
}
