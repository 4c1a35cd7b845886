//! An open-loop load: requests start on a fixed schedule, whether or not earlier ones have ended.
//!
//! Latency counts from the moment that the schedule names. So a stall shows in every request that should
//! have started while it lasted, not only in the one that it held up.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use weft_env::{Env, JoinHandle};

use super::http::Connection;

/// Connections of the application to its sidecar, and so requests under way, at most.
const MAX_OPEN: usize = 256;

/// A load that runs until it is stopped.
pub(super) struct Load {
    stop: CancellationToken,
    task: JoinHandle<LoadReport>,
}

/// What a load saw.
#[derive(Debug, Default)]
pub(super) struct LoadReport {
    /// Requests started.
    pub(super) sent: u64,
    /// Replies by status.
    pub(super) status: BTreeMap<u16, u64>,
    /// Failures by their reason: what came instead of a reply with status 200.
    pub(super) failures: BTreeMap<String, u64>,
    /// From first to last start.
    pub(super) lasted: Duration,
    /// From the scheduled start to the end of the reply, ascending.
    latencies: Vec<Duration>,
    /// The same from the moment that the request was really begun: what its sidecar can see too. Ascending.
    exchanges: Vec<Duration>,
}

impl LoadReport {
    /// Requests that did not end with status 200.
    pub(super) fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    /// Requests started a second.
    pub(super) fn rate(&self) -> f64 {
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let sent = self.sent.saturating_sub(1) as f64;
        sent / self.lasted.as_secs_f64().max(0.001)
    }

    /// A quantile of the latency of requests that succeeded, by nearest rank.
    pub(super) fn quantile(&self, q: f64) -> Duration {
        quantile(&self.latencies, q)
    }

    /// A quantile of the time that an exchange took which succeeded, from its own start.
    pub(super) fn exchange_quantile(&self, q: f64) -> Duration {
        quantile(&self.exchanges, q)
    }

    /// The figures as they stand in a step's detail.
    pub(super) fn detail(&self) -> serde_json::Value {
        let ms = |q| round(self.quantile(q));
        serde_json::json!({
            "sent": self.sent,
            "failed": self.failed(),
            "failures": self.failures,
            "per_second": self.rate().round(),
            "measured": "from when a request was due, up to a millisecond before the timer sends it, to the end of its answer",
            "p50_ms": ms(0.5),
            "p90_ms": ms(0.9),
            "p99_ms": ms(0.99),
            "max_ms": ms(1.0),
        })
    }
}

/// By nearest rank; zero if there is nothing.
pub(super) fn quantile(ascending: &[Duration], q: f64) -> Duration {
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rank between 0 and the number of requests"
    )]
    let rank = (q * ascending.len() as f64).ceil() as usize;
    ascending
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

/// Milliseconds with three decimals.
pub(super) fn round(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

impl Load {
    /// Starts `per_second` requests `GET path` to `host` each second through the listener at `addr`.
    pub(super) fn start(
        env: &Env,
        addr: SocketAddr,
        host: &str,
        path: &str,
        per_second: u32,
    ) -> Self {
        let stop = CancellationToken::new();
        let generator = Generator {
            env: env.clone(),
            addr,
            host: host.to_owned(),
            path: path.to_owned(),
            idle: VecDeque::new(),
            under_way: JoinSet::new(),
            report: LoadReport::default(),
        };
        let task = env.spawn(generator.run(Duration::from_secs(1) / per_second, stop.clone()));
        Self { stop, task }
    }

    /// Starts no more requests, waits for those under way, and reports.
    pub(super) async fn stop(self) -> Result<LoadReport, String> {
        self.stop.cancel();
        self.task
            .await
            .map_err(|error| format!("the load generator ended: {error}"))
    }
}

/// How long a request took that ended with status 200.
struct Took {
    /// From the scheduled start.
    latency: Duration,
    /// From the real one.
    exchange: Duration,
}

struct Generator {
    env: Env,
    addr: SocketAddr,
    host: String,
    path: String,
    idle: VecDeque<Connection>,
    under_way: JoinSet<Ended>,
    report: LoadReport,
}

/// A request that has ended, and its connection if it can be used again.
struct Ended {
    connection: Option<Connection>,
    outcome: Result<Took, String>,
}

impl Generator {
    async fn run(mut self, every: Duration, stop: CancellationToken) -> LoadReport {
        let mut schedule = tokio::time::interval(every);
        // Open loop: what was missed is caught up on, not left out.
        schedule.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let started = Instant::now();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = self.under_way.join_next() => self.collect(ended),
                due = schedule.tick() => {
                    self.report.lasted = due.saturating_duration_since(started);
                    self.send(due);
                }
            }
        }
        while let Some(ended) = self.under_way.join_next().await {
            self.collect(ended);
        }
        self.report.latencies.sort_unstable();
        self.report.exchanges.sort_unstable();
        self.report
    }

    fn send(&mut self, due: Instant) {
        self.report.sent += 1;
        if self.under_way.len() >= MAX_OPEN {
            self.fail(format!("{MAX_OPEN} requests were under way already"));
            return;
        }
        let idle = std::iter::from_fn(|| self.idle.pop_front()).find(Connection::is_usable);
        let (env, addr) = (self.env.clone(), self.addr);
        let (host, path) = (self.host.clone(), self.path.clone());
        self.under_way.spawn(async move {
            let begun = Instant::now();
            let opened = match idle {
                Some(connection) => Ok(connection),
                None => Connection::open(&env, addr).await,
            };
            let mut connection = match opened {
                Ok(connection) => connection,
                Err(error) => {
                    return Ended {
                        connection: None,
                        outcome: Err(error),
                    };
                }
            };
            let outcome = connection.get(&host, &path).await.and_then(|reply| {
                if reply.status == 200 {
                    Ok(Took {
                        latency: due.elapsed(),
                        exchange: begun.elapsed(),
                    })
                } else {
                    Err(format!("{}: {}", reply.status, reply.text()))
                }
            });
            let usable = connection.ready().await;
            Ended {
                connection: usable.then_some(connection),
                outcome,
            }
        });
    }

    fn collect(&mut self, ended: Result<Ended, tokio::task::JoinError>) {
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => return self.fail(format!("the load generator ended: {error}")),
        };
        if let Some(connection) = ended.connection {
            self.idle.push_back(connection);
        }
        match ended.outcome {
            Ok(Took { latency, exchange }) => {
                *self.report.status.entry(200).or_default() += 1;
                self.report.latencies.push(latency);
                self.report.exchanges.push(exchange);
            }
            Err(error) => self.fail(error),
        }
    }

    fn fail(&mut self, reason: String) {
        // Bounded: a load of some seconds with distinct request ids in its errors stays readable.
        let reason = if self.report.failures.len() < 20 {
            reason
        } else {
            "others".to_owned()
        };
        *self.report.failures.entry(reason).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_nearest_rank() {
        let report = LoadReport {
            latencies: (1..=100).map(Duration::from_millis).collect(),
            ..LoadReport::default()
        };
        assert_eq!(report.quantile(0.5), Duration::from_millis(50));
        assert_eq!(report.quantile(0.99), Duration::from_millis(99));
        assert_eq!(report.quantile(1.0), Duration::from_millis(100));
        assert_eq!(LoadReport::default().quantile(0.5), Duration::ZERO);
    }
}
