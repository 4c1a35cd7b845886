//! Closed loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::outcome::Recorder;
use super::{Client, Job, Outcome};
use crate::error::{Error, Result};
use crate::usage::Usage;

/// A failing peer is not hammered.
const AFTER_ERROR: Duration = Duration::from_millis(20);
/// How long replies may take that are under way at the end, before their connections are cut.
const GRACE: Duration = Duration::from_secs(2);

struct Seen {
    recorder: Recorder,
    outcome: Outcome,
}

pub(super) async fn run(job: &Job, connections: u32) -> Result<Outcome> {
    let begin = Instant::now() + job.warm_up;
    let end = begin + job.window;
    let arrived = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(one_connection(
            job.clone(),
            Arc::clone(&arrived),
            begin,
            end,
        ));
    }
    tokio::time::sleep_until(begin).await;
    let (before, at_begin) = (Usage::of(&job.proxies), arrived.load(Ordering::Relaxed));
    let started = Instant::now();
    tokio::time::sleep_until(end).await;
    let bytes = arrived.load(Ordering::Relaxed) - at_begin;
    let proxies = Usage::of(&job.proxies).since(before);
    let seconds = started.elapsed().as_secs_f64();
    let mut recorder = Recorder::new();
    let mut sum = Outcome {
        seconds,
        proxies,
        bytes,
        size: job.workload.size,
        ..Outcome::default()
    };
    while let Some(seen) = tasks.join_next().await {
        let seen = seen.map_err(|error| Error::Protocol(error.to_string()))?;
        recorder.merge(&seen.recorder);
        sum.errors += seen.outcome.errors;
        sum.first_error = sum.first_error.take().or(seen.outcome.first_error);
    }
    sum.requests = recorder.len();
    sum.latency = recorder.latency();
    Ok(sum)
}

/// Asks until the end. Only replies that arrive in the window count.
async fn one_connection(job: Job, arrived: Arc<AtomicU64>, begin: Instant, end: Instant) -> Seen {
    let mut seen = Seen {
        recorder: Recorder::new(),
        outcome: Outcome::default(),
    };
    let mut client = None;
    loop {
        let asked = Instant::now();
        if asked >= end {
            return seen;
        }
        let answer = tokio::time::timeout_at(end + GRACE, ask(&mut client, &job, &arrived));
        let Ok(answer) = answer.await else {
            return seen;
        };
        match answer {
            Ok(()) => {
                let now = Instant::now();
                if now >= begin && now < end {
                    seen.recorder.record(now - asked);
                }
            }
            Err(error) => {
                client = None;
                seen.outcome.failed(&error);
                tokio::time::sleep(AFTER_ERROR).await;
            }
        }
    }
}

/// One exchange, on a new connection if there is none.
pub(super) async fn ask(
    client: &mut Option<Client>,
    job: &Job,
    arrived: &Arc<AtomicU64>,
) -> Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(job.entry, &job.workload, arrived).await?),
    };
    client.exchange().await
}
