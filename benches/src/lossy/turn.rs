//! One turn, inside of a link: runs in namespace a, and puts side b into namespace b.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Load, Peer};
use crate::certs::Certs;
use crate::compare::client;
use crate::error::{Error, Result};
use crate::load::{Job, Mode, Outcome, Recorder};
use crate::pairs::{Congestion, Pair, Site, own};
use crate::process::{Place, find, run};

/// Connections that may be used at the same time. A client that had fewer would wait for itself while the link
/// stands still.
const CONNECTIONS: u32 = 512;
/// How often the bare timer wakes.
const EVERY: Duration = Duration::from_millis(5);

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Turn {
    pub(super) peer: Peer,
    pub(super) load: Load,
    /// Before the window that counts: congestion windows, and what a pair learns about its path.
    pub(super) warm_up: Duration,
    pub(super) window: Duration,
    pub(super) weft: PathBuf,
}

/// What it found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TurnFound {
    pub(super) outcome: Outcome,
    pub(super) first_ms: Option<f64>,
    /// How late a bare timer of the usual priority was meanwhile, p99, ms: the proxies were no better off.
    pub(super) cpu_late_p99_ms: f64,
}

impl Turn {
    /// Does it, to the end.
    pub(crate) async fn run(&self) -> Result<TurnFound> {
        let dir = tempfile::Builder::new()
            .prefix("weft-benches-")
            .tempdir()
            .map_err(Error::io("make a temporary folder"))?;
        let a = Place {
            ip: variable("WEFT_IP_A")?,
            prefix: Vec::new(),
        };
        let words = std::env::var("WEFT_IN_B").unwrap_or_default();
        let b = Place {
            ip: variable("WEFT_IP_B")?,
            prefix: words.split(' ').map(str::to_owned).collect(),
        };
        let congestion = self.peer.congestion.unwrap_or(Congestion::Cubic);
        for place in [&a, &b] {
            set_congestion(place, congestion).await?;
        }
        let (_server, server) = own::start_server(&b, dir.path()).await?;
        let site = Site {
            dir: dir.path().to_owned(),
            a: a.clone(),
            b,
            server,
            certs: Certs::create(dir.path())?,
            weft: self.weft.clone(),
            congestion,
            grpc: false,
        };
        let pair = Pair::start(self.peer.kind, &site).await?;
        let watch = Watch::start()?;
        let outcome = client(&a, &self.job(&pair)).await?;
        Ok(TurnFound {
            cpu_late_p99_ms: watch.p99_ms(),
            outcome,
            first_ms: pair.first.map(|first| first.as_secs_f64() * 1e3),
        })
    }

    fn job(&self, pair: &Pair) -> Job {
        let (size, mode) = match self.load {
            Load::Requests { size, rate } => {
                let connections = CONNECTIONS;
                (size, Mode::Open { rate, connections })
            }
            Load::Bulk { size, streams } => {
                let connections = streams;
                (size, Mode::Closed { connections })
            }
        };
        Job {
            entry: pair.entry,
            workload: pair.workload(size, 3),
            mode,
            warm_up: self.warm_up,
            window: self.window,
            proxies: pair.pids(),
        }
    }
}

/// A timer that does nothing but wake.
struct Watch {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<Recorder>,
}

impl Watch {
    fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let watch = move || {
            let mut late = Recorder::new();
            while !seen.load(Ordering::Relaxed) {
                let due = Instant::now() + EVERY;
                std::thread::sleep(EVERY);
                late.record(due.elapsed());
            }
            late
        };
        let thread = std::thread::Builder::new().name("watch".into());
        let thread = thread.spawn(watch);
        Ok(Self {
            stop,
            thread: thread.map_err(Error::io("start the timer's thread"))?,
        })
    }

    fn p99_ms(self) -> f64 {
        self.stop.store(true, Ordering::Relaxed);
        let latency = self.thread.join().ok().and_then(|late| late.latency());
        latency.map_or(0.0, |latency| latency.p99 / 1e3)
    }
}

fn variable(name: &str) -> Result<IpAddr> {
    let value = std::env::var(name).ok().and_then(|text| text.parse().ok());
    value.ok_or_else(|| Error::Protocol(format!("{name} is not set: this runs inside weft-netsim")))
}

/// Gives all TCP over the link a congestion control: only a route can, in a namespace that is not the first.
async fn set_congestion(place: &Place, congestion: Congestion) -> Result<()> {
    let ip = find("ip").ok_or(Error::Missing {
        what: "ip",
        how: "apt-get install iproute2".into(),
    })?;
    let routes = run(place, Path::new(&ip), &["route", "show"]).await?;
    for route in routes.lines() {
        let mut words = vec!["route", "replace"];
        words.extend(route.split_ascii_whitespace());
        words.extend(["congctl", congestion.name()]);
        run(place, Path::new(&ip), &words).await?;
    }
    Ok(())
}
