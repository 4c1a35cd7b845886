//! `latency`: the table of edges, from the sidecars' own telemetry, against what the load generator saw.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;
use weft_control::Edge;

use super::super::load::{Load, LoadReport, quantile as quantile_of, round};
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::wait::{Deadline, eventually};

/// Requests a second, and for how long.
const RATE: u32 = 300;
const LASTS: Duration = Duration::from_millis(1500);
/// Most runs of the load. That two ways of measuring agree is a property of the measuring: a busy machine comes between
/// the caller and its sidecar, and can only drive them apart. So the run in which they agree best counts.
const RUNS: usize = 3;

/// The quantiles that are compared, and how far the caller's may be above its sidecar's beside half of that: the way
/// between the two processes, twice, and at the far end what a scheduler does now and then. What the machine made this
/// process wait meanwhile is added, twice: both processes must be woken.
const COMPARED: [(&str, f64, Duration); 3] = [
    ("p50", 0.5, Duration::from_micros(300)),
    ("p90", 0.9, Duration::from_micros(500)),
    ("p99", 0.99, Duration::from_millis(2)),
];
/// How often this process looks how late it is woken, and how exact its timer is.
const LOOK: Duration = Duration::from_millis(2);
const TIMER: Duration = Duration::from_millis(1);
/// How far a bucket's upper bound may be above what is in it: 1/128, two significant digits, and whole microseconds.
const BUCKET: u32 = 128;
const GRAIN: Duration = Duration::from_micros(1);

/// What one run has added, apart from what was there before.
struct Run {
    load: LoadReport,
    added: Vec<Edge>,
    compared: Vec<Compared>,
}

/// One quantile as both have it.
#[derive(Debug, Clone, Serialize)]
struct Compared {
    quantile: &'static str,
    sidecar_ms: f64,
    caller_ms: f64,
    /// How far the caller's may be above the sidecar's.
    may_be_above_ms: f64,
    /// How far the sidecar's may be above the caller's: the width of its bucket.
    may_be_below_ms: f64,
    /// By how much the difference is too large.
    excess_ms: f64,
}

impl Compared {
    fn new(quantile: &'static str, sidecar: Duration, caller: Duration, above: Duration) -> Self {
        let (above, below) = (above + sidecar / 2, caller / BUCKET + GRAIN);
        let excess =
            caller.saturating_sub(sidecar + above) + sidecar.saturating_sub(caller + below);
        Self {
            quantile,
            sidecar_ms: round(sidecar),
            caller_ms: round(caller),
            may_be_above_ms: round(above),
            may_be_below_ms: round(below),
            excess_ms: round(excess),
        }
    }

    fn agrees(&self) -> bool {
        self.excess_ms <= 0.0
    }
}

impl Run {
    fn agrees(&self) -> bool {
        self.compared.iter().all(Compared::agrees)
    }

    fn excess_ms(&self) -> f64 {
        self.compared.iter().map(|c| c.excess_ms).sum()
    }
}

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found =
        Findings::of("the sidecars' own telemetry counts what the load generator counted");
    let mut before = settled(mesh).await?;
    let mut runs: Vec<Run> = Vec::new();
    while runs.len() < RUNS && !runs.last().is_some_and(Run::agrees) {
        let (run, after) = one_run(mesh, &before).await?;
        before = after;
        count(&mut found, &run);
        runs.push(run);
    }
    let excess: Vec<f64> = runs.iter().map(Run::excess_ms).collect();
    let best = runs
        .into_iter()
        .min_by(|a, b| a.excess_ms().total_cmp(&b.excess_ms()))
        .ok_or("there was no load")?;
    for compared in &best.compared {
        let Compared {
            quantile,
            sidecar_ms,
            caller_ms,
            may_be_above_ms,
            may_be_below_ms,
            ..
        } = compared;
        found.check(
            compared.agrees(),
            format!(
                "{quantile} of the caller at most {may_be_above_ms} ms above and {may_be_below_ms} ms below that of its sidecar, saw {caller_ms} and {sidecar_ms} ms"
            ),
        );
    }
    let shown: Vec<String> = best
        .compared
        .iter()
        .map(|c| format!("{} {:.2} ms", c.quantile, c.sidecar_ms))
        .collect();
    found.figure(format!("{}, {} requests", shown.join(", "), best.load.sent));
    found.detail("load", best.load.detail());
    found.detail("edges", &best.added);
    found.detail("agreement", &best.compared);
    found.detail(
        "agreement_is_of",
        "the time from the start of a request to the end of its answer, by the caller and by its sidecar",
    );
    found.detail("runs_excess_ms", excess);
    found.detail(
        "runs",
        format!(
            "counts are exact in every run; of up to {RUNS} the one whose percentiles agree best is shown, for a busy machine can only drive the caller and its sidecar apart"
        ),
    );
    mesh.edges = Some(crate::command::top::table(&best.added));
    Ok(found)
}

/// Puts a load on, and gives what it added to the edges, with the edges after it.
async fn one_run(mesh: &Mesh, before: &[Edge]) -> Result<(Run, Vec<Edge>), String> {
    let admin = mesh.admin();
    let outbound = mesh.sidecar("orders")?.outbound;
    let load = Load::start(&mesh.env, outbound, "invoices", "/echo", RATE);
    let late = lateness(LASTS).await;
    let load = load.stop().await?;
    let edges = eventually(
        Deadline::after(Duration::from_secs(5)),
        "the reports of both sides to arrive",
        async || {
            let edges = admin.edges().await?;
            let all_in = ["source", "destination"].iter().all(|side| {
                edge(&edges, side).map_or(0, |e| e.requests)
                    >= edge(before, side).map_or(0, |e| e.requests) + load.sent
            });
            Ok(all_in.then_some(edges))
        },
    )
    .await?;
    let added: Vec<Edge> = edges
        .iter()
        .map(|edge| edge.since(same(before, edge)))
        .filter(|edge| edge.requests > 0)
        .collect();
    let source = edge(&added, "source").ok_or("the caller's side has counted nothing")?;
    let seen = [source.p50_us, source.p90_us, source.p99_us];
    let compared = COMPARED
        .into_iter()
        .zip(seen)
        .map(|((name, quantile, above), seen)| {
            let sidecar = Duration::from_micros(seen.unwrap_or_default());
            let above = above + 2 * quantile_of(&late, quantile);
            Compared::new(name, sidecar, load.exchange_quantile(quantile), above)
        })
        .collect();
    let run = Run {
        load,
        added,
        compared,
    };
    Ok((run, edges))
}

/// How much later than its timer's grain this process was woken, sorted, over a time.
async fn lateness(over: Duration) -> Vec<Duration> {
    let began = Instant::now();
    let mut late = Vec::new();
    while began.elapsed() < over {
        let due = Instant::now() + LOOK;
        tokio::time::sleep_until(due).await;
        late.push(due.elapsed().saturating_sub(TIMER));
    }
    late.sort_unstable();
    late
}

/// Counts are exact, on any machine.
fn count(found: &mut Findings, run: &Run) {
    let (sent, failed) = (run.load.sent, run.load.failed());
    for side in ["source", "destination"] {
        let edge = edge(&run.added, side);
        let (counted, failures) = edge.map_or((0, 0), |e| (e.requests, e.failures));
        found.check(
            counted == sent,
            format!("{sent} requests at the {side}, saw {counted}"),
        );
        found.check(
            failures == failed,
            format!("{failed} failures at the {side}, saw {failures}"),
        );
    }
}

/// The same edge in an earlier list.
fn same<'a>(edges: &'a [Edge], of: &Edge) -> Option<&'a Edge> {
    edges.iter().find(|e| {
        (&e.reporter, &e.source, &e.destination, &e.protocol)
            == (&of.reporter, &of.source, &of.destination, &of.protocol)
    })
}

/// The edges once nothing more comes in from earlier steps: the same in two reports' time.
async fn settled(mesh: &Mesh) -> Result<Vec<Edge>, String> {
    let admin = mesh.admin();
    let mut last = admin.edges().await?;
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        let now = admin.edges().await?;
        let same = ["source", "destination"].iter().all(|side| {
            edge(&now, side).map(|e| e.requests) == edge(&last, side).map(|e| e.requests)
        });
        if same {
            return Ok(now);
        }
        last = now;
    }
    Err("the counters of the edges do not come to rest".to_owned())
}

fn edge<'a>(edges: &'a [Edge], reporter: &str) -> Option<&'a Edge> {
    edges.iter().find(|e| {
        e.reporter == reporter
            && e.source == "orders.default"
            && e.destination == "invoices.default"
            && e.protocol == "http"
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agreement_is_narrow_where_the_figures_are_small() {
        let us = Duration::from_micros;
        for (sidecar, caller, agrees) in [
            (300, 420, true),
            (300, 750, true),
            (300, 751, false),
            (300, 2_200, false),
            // A bucket's width above the caller's, and no more.
            (100_700, 100_000, true),
            (304, 300, false),
            (12_000, 18_000, true),
        ] {
            let compared = Compared::new("p50", us(sidecar), us(caller), us(300));
            assert_eq!(compared.agrees(), agrees, "{compared:?}");
        }
    }
}
