//! Open loop: a thread of its own says when each request is due, to some 60 µs, where the runtime's timers
//! have a millisecond; workers with a connection each take them in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::closed::ask;
use super::outcome::Recorder;
use super::{Job, Outcome};
use crate::error::{Error, Result};
use crate::usage::Usage;

/// How long replies may come after the last request was due. What is not there by then "never caught up".
const GRACE: Duration = Duration::from_secs(10);

/// When each request is due.
struct Schedule {
    start: Instant,
    every: Duration,
    count: u64,
    /// First request that counts.
    counted_from: u64,
    due: Semaphore,
    next: AtomicU64,
}

#[derive(Default)]
struct Seen {
    recorder: Option<Recorder>,
    lateness: Option<Recorder>,
    errors: Outcome,
}

pub(super) async fn run(job: &Job, rate: u32, connections: u32) -> Result<Outcome> {
    let every = Duration::from_secs(1) / rate.max(1);
    let requests =
        |span: Duration| u64::from(rate) * u64::try_from(span.as_millis()).unwrap_or(0) / 1000;
    let counted_from = requests(job.warm_up);
    let schedule = Arc::new(Schedule {
        // Workers connect first.
        start: Instant::now() + Duration::from_millis(300),
        every,
        count: counted_from + requests(job.window),
        counted_from,
        due: Semaphore::new(0),
        next: AtomicU64::new(0),
    });
    let mut workers = JoinSet::new();
    for _ in 0..connections {
        workers.spawn(worker(job.clone(), Arc::clone(&schedule)));
    }
    let before = begin_clock(Arc::clone(&schedule), job).await?;
    let window_start = Instant::now();
    let end = schedule.at(schedule.count);
    tokio::time::sleep_until(end.into()).await;
    let proxies = Usage::of(&job.proxies).since(before);
    let seconds = window_start.elapsed().as_secs_f64();
    collect(workers, &schedule, job, proxies, seconds).await
}

/// Starts the clock's thread; gives the proxies' usage at the begin of the window.
async fn begin_clock(schedule: Arc<Schedule>, job: &Job) -> Result<Usage> {
    let counted = schedule.at(schedule.counted_from);
    let clock = move || {
        for index in 0..schedule.count {
            let due = schedule.at(index);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            schedule.due.add_permits(1);
        }
        schedule.due.close();
    };
    std::thread::Builder::new()
        .name("clock".into())
        .spawn(clock)
        .map_err(Error::io("start the clock's thread"))?;
    tokio::time::sleep_until(counted.into()).await;
    Ok(Usage::of(&job.proxies))
}

impl Schedule {
    fn at(&self, index: u64) -> Instant {
        self.start + Duration::from_nanos(u64::try_from(self.every.as_nanos()).unwrap_or(0) * index)
    }

    /// The next request that is due; none after the last.
    async fn take(&self) -> Option<u64> {
        // Closed, the clock has ended, but requests that were due may be left.
        if let Ok(permit) = self.due.acquire().await {
            permit.forget();
        }
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        (index < self.count).then_some(index)
    }
}

async fn worker(job: Job, schedule: Arc<Schedule>) -> Seen {
    let mut seen = Seen::default();
    let mut client = None;
    while let Some(index) = schedule.take().await {
        let due = schedule.at(index);
        let taken = Instant::now();
        let answer = ask(&mut client, &job).await;
        if answer.is_err() {
            client = None;
        }
        if index < schedule.counted_from {
            continue;
        }
        let late = taken.saturating_duration_since(due);
        seen.lateness.get_or_insert_with(Recorder::new).record(late);
        match answer {
            Ok(()) => seen
                .recorder
                .get_or_insert_with(Recorder::new)
                .record(due.elapsed()),
            Err(error) => seen.errors.failed(&error),
        }
    }
    seen
}

async fn collect(
    mut workers: JoinSet<Seen>,
    schedule: &Schedule,
    job: &Job,
    proxies: Usage,
    seconds: f64,
) -> Result<Outcome> {
    let (mut recorder, mut lateness) = (Recorder::new(), Recorder::new());
    let mut sum = Outcome {
        seconds,
        proxies,
        ..Outcome::default()
    };
    let all = async {
        while let Some(seen) = workers.join_next().await {
            let seen = seen.map_err(|error| Error::Protocol(error.to_string()))?;
            seen.recorder.iter().for_each(|one| recorder.merge(one));
            seen.lateness.iter().for_each(|one| lateness.merge(one));
            sum.errors += seen.errors.errors;
            sum.first_error = sum.first_error.take().or(seen.errors.first_error);
        }
        Ok::<_, Error>(())
    };
    if let Ok(result) = tokio::time::timeout(GRACE, all).await {
        result?;
    }
    sum.requests = recorder.len();
    sum.bytes = sum.requests * job.workload.size;
    // What a worker that never ended has seen is not in the sum: the whole run has no percentiles then.
    sum.unanswered =
        (schedule.count - schedule.counted_from).saturating_sub(sum.requests + sum.errors);
    sum.latency = recorder.latency();
    sum.lateness = lateness.latency();
    Ok(sum)
}
