//! Turns: each pair in its turn, the same again, in an order that changes.

use std::collections::BTreeMap;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{Arena, Case, CompareArgs, Traffic};
use crate::certs::Certs;
use crate::error::{Error, Result};
use crate::load::{Job, Outcome};
use crate::pairs::{Kind, Pair, Site, own};
use crate::process::{Place, Process, run};
use crate::usage::Usage;

/// Before the window that counts: connections, caches, congestion windows.
const WARM_UP: Duration = Duration::from_millis(400);
/// The same where many large replies are under way: until all have begun.
const LARGE_WARM_UP: Duration = Duration::from_millis(1_200);

fn warm_up(case: &Case) -> Duration {
    match case.traffic {
        Traffic::Closed {
            size, connections, ..
        } if size * u64::from(connections) > 8 * 1024 * 1024 => LARGE_WARM_UP,
        _ => WARM_UP,
    }
}

/// Everything that a comparison found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Comparison {
    /// Where it ran.
    pub(crate) arena: Arena,
    /// Resident memory of the larger proxy of each pair after its first request, bytes.
    #[serde(default)]
    pub(crate) idle: BTreeMap<Kind, u64>,
    /// Each pair with each kind of traffic.
    pub(crate) rows: Vec<Row>,
}

/// One pair with one kind of traffic.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    pub(crate) case: Case,
    /// One for each turn, `None` where the turn failed.
    pub(crate) turns: Vec<Option<Outcome>>,
    /// Why there is no figure, or one less.
    pub(crate) not_measured: Option<String>,
}

/// Pairs that are up, or the reason why not.
pub(crate) struct Bench {
    here: Place,
    pairs: BTreeMap<Kind, std::result::Result<Pair, String>>,
    _server: Process,
    _dir: TempDir,
}

impl Bench {
    /// Starts the server and every pair that can be had.
    pub(crate) async fn put_up(
        kinds: impl IntoIterator<Item = Kind>,
        args: &CompareArgs,
        grpc: bool,
        bar: &ProgressBar,
    ) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("weft-benches-")
            .tempdir()
            .map_err(Error::io("make a temporary folder"))?;
        let here = Place::here();
        let (server, addr) = own::start_server(&here, dir.path()).await?;
        let weft = args
            .weft
            .canonicalize()
            .unwrap_or_else(|_| args.weft.clone());
        let site = Site {
            dir: dir.path().to_owned(),
            a: here.clone(),
            b: here.clone(),
            server: addr,
            certs: Certs::create(dir.path())?,
            weft,
            congestion: args.congestion,
            grpc,
        };
        let mut pairs = BTreeMap::new();
        for kind in kinds {
            bar.set_message(format!("starting {}", kind.title()));
            let pair = Pair::start(kind, &site)
                .await
                .map_err(|error| error.to_string());
            if let Err(reason) = &pair {
                bar.println(format!("{}: not measured: {reason}", kind.title()));
            }
            pairs.insert(kind, pair);
        }
        Ok(Self {
            here,
            pairs,
            _server: server,
            _dir: dir,
        })
    }

    /// Memory of the larger proxy of each pair that is up, now.
    pub(crate) fn memory(&self) -> BTreeMap<Kind, u64> {
        let up = self
            .pairs
            .iter()
            .filter_map(|(kind, pair)| Some((*kind, pair.as_ref().ok()?)));
        let up = up.filter(|(kind, _)| *kind != Kind::Direct);
        up.map(|(kind, pair)| (kind, Usage::of(&pair.pids()).rss_largest))
            .collect()
    }

    /// One kind of traffic through all of them.
    pub(crate) async fn run(
        &mut self,
        case: &Case,
        repetitions: u32,
        window: Duration,
        bar: &ProgressBar,
    ) -> Result<Vec<Row>> {
        let kinds: Vec<Kind> = self
            .pairs
            .keys()
            .copied()
            .filter(|kind| case.is_for(*kind))
            .collect();
        let mut rows: BTreeMap<Kind, Row> = kinds
            .iter()
            .map(|kind| (*kind, Row::new(*kind, *case)))
            .collect();
        for turn in 0..repetitions as usize {
            // Each begins a round once: what comes first or after whom has no side.
            let mut order = kinds.clone();
            order.rotate_left(turn % kinds.len().max(1));
            if turn % 2 == 1 {
                order.reverse();
            }
            for kind in order {
                bar.set_message(format!("{}: {}", kind.title(), case.title()));
                let outcome = self.turn(kind, case, window).await;
                if let Some(row) = rows.get_mut(&kind) {
                    row.take(outcome);
                }
                bar.inc(1);
            }
        }
        Ok(rows.into_values().collect())
    }

    async fn turn(
        &self,
        kind: Kind,
        case: &Case,
        window: Duration,
    ) -> std::result::Result<Outcome, String> {
        if kind == Kind::WeftL7 && matches!(case.traffic, Traffic::Grpc { .. }) {
            return Err(
                "weft takes HTTP/1.1 from applications; gRPC goes through it as TCP".into(),
            );
        }
        let pair = match self.pairs.get(&kind) {
            Some(Ok(pair)) => pair,
            Some(Err(reason)) => return Err(reason.clone()),
            None => return Err("not asked for".into()),
        };
        let (size, fields) = case.reply();
        let job = Job {
            entry: pair.entry,
            workload: pair.workload(size, fields),
            mode: case.mode(),
            warm_up: warm_up(case),
            window,
            proxies: pair.pids(),
        };
        client(&self.here, &job)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Has the client do a job, in a process of its own.
pub(crate) async fn client(place: &Place, job: &Job) -> Result<Outcome> {
    let text = serde_json::to_string(job).map_err(|error| Error::Protocol(error.to_string()))?;
    let said = run(place, &own::myself()?, &["role", "load", &text]).await?;
    serde_json::from_str(&said).map_err(|error| Error::Protocol(format!("the client: {error}")))
}

impl Row {
    fn new(kind: Kind, case: Case) -> Self {
        Self {
            kind,
            case,
            turns: Vec::new(),
            not_measured: None,
        }
    }

    fn take(&mut self, outcome: std::result::Result<Outcome, String>) {
        match outcome {
            Ok(outcome) => self.turns.push(Some(outcome)),
            Err(reason) => {
                self.turns.push(None);
                self.not_measured.get_or_insert(reason);
            }
        }
    }

    /// One figure of every turn.
    pub(crate) fn figures(&self, figure: impl Fn(&Outcome) -> Option<f64>) -> Vec<Option<f64>> {
        self.turns
            .iter()
            .map(|turn| turn.as_ref().and_then(&figure))
            .collect()
    }

    /// Replies that did not come, over all turns.
    pub(crate) fn errors(&self) -> u64 {
        self.turns
            .iter()
            .flatten()
            .map(|turn| turn.errors + turn.unanswered)
            .sum()
    }
}
