//! Closed loop.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::outcome::Recorder;
use super::{Client, Job, Outcome};
use crate::error::{Error, Result};
use crate::usage::Usage;

/// A failing peer is not hammered.
const AFTER_ERROR: Duration = Duration::from_millis(20);
/// How long the last replies may take.
const GRACE: Duration = Duration::from_secs(20);

struct Seen {
    recorder: Recorder,
    outcome: Outcome,
}

pub(super) async fn run(job: &Job, connections: u32) -> Result<Outcome> {
    let begin = Instant::now() + job.warm_up;
    let end = begin + job.window;
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(one_connection(job.clone(), begin, end));
    }
    tokio::time::sleep_until(begin).await;
    let before = Usage::of(&job.proxies);
    let started = Instant::now();
    tokio::time::sleep_until(end).await;
    let proxies = Usage::of(&job.proxies).since(before);
    let seconds = started.elapsed().as_secs_f64();
    let mut recorder = Recorder::new();
    let mut sum = Outcome {
        seconds,
        proxies,
        ..Outcome::default()
    };
    let all = async {
        while let Some(seen) = tasks.join_next().await {
            let seen = seen.map_err(|error| Error::Protocol(error.to_string()))?;
            recorder.merge(&seen.recorder);
            sum.errors += seen.outcome.errors;
            sum.first_error = sum.first_error.take().or(seen.outcome.first_error);
        }
        Ok::<_, Error>(())
    };
    let Ok(all) = tokio::time::timeout(GRACE, all).await else {
        return Err(Error::Protocol(format!(
            "replies did not come within {GRACE:?}"
        )));
    };
    all?;
    sum.requests = recorder.len();
    sum.bytes = sum.requests * job.workload.size;
    sum.latency = recorder.latency();
    Ok(sum)
}

/// Asks until the end. Only replies that arrive in the window count.
async fn one_connection(job: Job, begin: Instant, end: Instant) -> Seen {
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
        match ask(&mut client, &job).await {
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
pub(super) async fn ask(client: &mut Option<Client>, job: &Job) -> Result<()> {
    let client = match client {
        Some(client) => client,
        None => client.insert(Client::connect(job.entry, &job.workload).await?),
    };
    client.exchange().await
}
