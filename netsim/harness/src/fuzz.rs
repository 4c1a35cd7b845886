//! Many seeds.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::scenario::{Failure, Settings, Summary, run_seed};

/// What to run.
#[derive(Clone, Debug)]
pub struct Fuzzing {
    /// The seeds.
    pub seeds: Range<u64>,
    /// How many at a time, each on a thread of its own.
    pub jobs: usize,
    /// Whether to go on after the first failure.
    pub keep_going: bool,
    /// How long a run is.
    pub settings: Settings,
}

/// Is told of each seed.
pub trait Progress: Sync {
    /// A seed is done.
    fn done(&self, outcome: &Result<Summary, Box<Failure>>);
}

/// Tells nobody.
#[derive(Clone, Copy, Debug)]
pub struct NoProgress;

impl Progress for NoProgress {
    fn done(&self, _: &Result<Summary, Box<Failure>>) {}
}

/// What came of them.
#[derive(Clone, Debug, Default)]
pub struct FuzzReport {
    /// Seeds that passed.
    pub passed: u64,
    /// Virtual time of those.
    pub virtual_time: Duration,
    /// Requests of those.
    pub requests: u64,
    /// The longest that one took to come right after its faults.
    pub slowest: Duration,
    /// The most tasks that a process had.
    pub most_tasks: usize,
    /// The most that one had at the end of a run, at rest.
    pub tasks_at_rest: usize,
    /// The most memory that a process held, in bytes.
    pub most_bytes: usize,
    /// The most that one held at the end of a run, at rest.
    pub bytes_at_rest: usize,
    /// The fullest that a socket's buffer was, in datagrams.
    pub fullest_socket: usize,
    /// Seeds that did not, lowest first.
    pub failures: Vec<Failure>,
}

/// Runs seeds until all are done, or one has failed.
pub fn fuzz(fuzzing: &Fuzzing, progress: &dyn Progress) -> FuzzReport {
    let next = AtomicU64::new(fuzzing.seeds.start);
    let report = Mutex::new(FuzzReport::default());
    let lock = || {
        report
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= fuzzing.seeds.end {
                return;
            }
            let outcome = run_seed(seed, &fuzzing.settings);
            progress.done(&outcome);
            let mut report = lock();
            match outcome {
                Ok(summary) => {
                    report.passed += 1;
                    report.virtual_time += summary.virtual_time;
                    report.requests += summary.requests;
                    report.most_tasks = report.most_tasks.max(summary.most_tasks);
                    report.tasks_at_rest = report.tasks_at_rest.max(summary.tasks_at_rest);
                    report.most_bytes = report.most_bytes.max(summary.most_bytes);
                    report.bytes_at_rest = report.bytes_at_rest.max(summary.bytes_at_rest);
                    report.fullest_socket = report.fullest_socket.max(summary.fullest_socket);
                    report.slowest = report.slowest.max(summary.converged_after);
                }
                Err(failure) => {
                    report.failures.push(*failure);
                    if !fuzzing.keep_going {
                        next.store(fuzzing.seeds.end, Ordering::Relaxed);
                    }
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..fuzzing.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut report = report
        .into_inner()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    report.failures.sort_by_key(|failure| failure.seed);
    report
}
