//! Open loop: a thread of its own says when each request is due, to some 60 µs, where the runtime's timers
//! have a millisecond. Each request is a task of its own, on the idle connection that was used last, or on a
//! new one: what a client's pool does.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;

use super::closed::ask;
use super::outcome::Recorder;
use super::{Client, Job, Outcome};
use crate::error::{Error, Result};
use crate::usage::Usage;

/// How long replies may come after the last request was due. What is not there by then "never caught up".
const GRACE: Duration = Duration::from_secs(10);
/// Before the first request is due.
const AHEAD: Duration = Duration::from_millis(50);

/// When each request is due.
struct Schedule {
    start: Instant,
    every: Duration,
    count: u64,
    /// First request that counts.
    counted_from: u64,
    due: Semaphore,
}

#[derive(Default)]
struct Seen {
    latency: Option<Recorder>,
    lateness: Option<Recorder>,
    errors: Outcome,
}

/// What the requests share.
struct Pool {
    job: Job,
    schedule: Arc<Schedule>,
    idle: Mutex<Vec<Client>>,
    seen: Mutex<Seen>,
    arrived: Arc<AtomicU64>,
}

pub(super) async fn run(job: &Job, rate: u32, connections: u32) -> Result<Outcome> {
    let schedule = Arc::new(Schedule::new(job, rate));
    let pool = Arc::new(Pool {
        job: job.clone(),
        schedule: Arc::clone(&schedule),
        idle: Mutex::default(),
        seen: Mutex::default(),
        arrived: Arc::default(),
    });
    start_clock(&schedule)?;
    let asking = tokio::spawn(Arc::clone(&pool).ask_all(connections));
    tokio::time::sleep_until(schedule.at(schedule.counted_from).into()).await;
    let (before, started) = (Usage::of(&job.proxies), Instant::now());
    tokio::time::sleep_until(schedule.at(schedule.count).into()).await;
    let proxies = Usage::of(&job.proxies).since(before);
    let seconds = started.elapsed().as_secs_f64();
    // What is not answered by then never will be, as far as this run is concerned.
    if let Ok(ended) = tokio::time::timeout(GRACE, asking).await {
        ended.map_err(|error| Error::Protocol(error.to_string()))?;
    }
    Ok(pool.outcome(seconds, proxies))
}

/// The thread that says when.
fn start_clock(schedule: &Arc<Schedule>) -> Result<()> {
    let schedule = Arc::clone(schedule);
    let clock = move || {
        for index in 0..schedule.count {
            let due = schedule.at(index);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            schedule.due.add_permits(1);
        }
    };
    let thread = std::thread::Builder::new().name("clock".into());
    thread
        .spawn(clock)
        .map(drop)
        .map_err(Error::io("start the clock's thread"))
}

impl Schedule {
    fn new(job: &Job, rate: u32) -> Self {
        let requests =
            |span: Duration| u64::from(rate) * u64::try_from(span.as_millis()).unwrap_or(0) / 1000;
        let counted_from = requests(job.warm_up);
        Self {
            start: Instant::now() + AHEAD,
            every: Duration::from_secs(1) / rate.max(1),
            count: counted_from + requests(job.window),
            counted_from,
            due: Semaphore::new(0),
        }
    }

    fn at(&self, index: u64) -> Instant {
        self.start + Duration::from_nanos(u64::try_from(self.every.as_nanos()).unwrap_or(0) * index)
    }
}

impl Pool {
    /// Starts each request when it is due; a request that finds all connections busy waits, and its latency
    /// counts from when it was due.
    async fn ask_all(self: Arc<Self>, connections: u32) {
        let places = Arc::new(Semaphore::new(connections as usize));
        let mut requests = JoinSet::new();
        for index in 0..self.schedule.count {
            if let Ok(due) = self.schedule.due.acquire().await {
                due.forget();
            }
            let Ok(place) = Arc::clone(&places).acquire_owned().await else {
                return;
            };
            requests.spawn(Arc::clone(&self).one(index, place));
            while requests.try_join_next().is_some() {}
        }
        while requests.join_next().await.is_some() {}
    }

    async fn one(self: Arc<Self>, index: u64, _place: OwnedSemaphorePermit) {
        let due = self.schedule.at(index);
        let late = due.elapsed();
        let mut client = lock(&self.idle).pop();
        let answer = ask(&mut client, &self.job, &self.arrived).await;
        let took = due.elapsed();
        if let Some(client) = client.filter(|_| answer.is_ok()) {
            lock(&self.idle).push(client);
        }
        if index < self.schedule.counted_from {
            return;
        }
        let mut seen = lock(&self.seen);
        seen.lateness.get_or_insert_with(Recorder::new).record(late);
        match answer {
            Ok(()) => seen.latency.get_or_insert_with(Recorder::new).record(took),
            Err(error) => seen.errors.failed(&error),
        }
    }

    fn outcome(&self, seconds: f64, proxies: Usage) -> Outcome {
        let seen = lock(&self.seen);
        let requests = seen.latency.as_ref().map_or(0, Recorder::len);
        let counted = self.schedule.count - self.schedule.counted_from;
        Outcome {
            seconds,
            requests,
            bytes: requests * self.job.workload.size,
            size: self.job.workload.size,
            errors: seen.errors.errors,
            first_error: seen.errors.first_error.clone(),
            unanswered: counted.saturating_sub(requests + seen.errors.errors),
            latency: seen.latency.as_ref().and_then(Recorder::latency),
            lateness: seen.lateness.as_ref().and_then(Recorder::latency),
            proxies,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
