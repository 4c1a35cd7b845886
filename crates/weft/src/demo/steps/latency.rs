//! `latency`: the table of edges, from the sidecars' own telemetry, against what the load generator saw.

use std::time::Duration;

use weft_control::Edge;

use super::super::load::{Load, round};
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::wait::{Deadline, eventually};

/// Requests a second, and for how long.
const RATE: u32 = 300;
const LASTS: Duration = Duration::from_millis(2000);

/// How far the caller's own figures may be above the sidecar's: the way between the two processes, twice, and
/// the scheduling of a busy machine. A histogram's bucket may make the sidecar's the larger ones.
const ABOVE: Duration = Duration::from_millis(2);
const BELOW: Duration = Duration::from_micros(200);

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found =
        Findings::of("the sidecars' own telemetry counts what the load generator counted");
    let admin = mesh.admin();
    let settled = settled(mesh).await?;
    let outbound = mesh.sidecar("orders")?.outbound;
    let load = Load::start(&mesh.env, outbound, "invoices", "/echo", RATE);
    tokio::time::sleep(LASTS).await;
    let load = load.stop().await?;

    let edges = eventually(
        Deadline::after(Duration::from_secs(5)),
        "the reports of both sides to arrive",
        async || {
            let edges = admin.edges().await?;
            let all_in = ["source", "destination"].iter().all(|side| {
                edge(&edges, side).map_or(0, |e| e.requests)
                    >= edge(&settled, side).map_or(0, |e| e.requests) + load.sent
            });
            Ok(all_in.then_some(edges))
        },
    )
    .await?;
    // What this step's load has added, apart from what the steps before left.
    let added: Vec<Edge> = edges
        .iter()
        .map(|edge| edge.since(same(&settled, edge)))
        .filter(|edge| edge.requests > 0)
        .collect();
    for side in ["source", "destination"] {
        let (counted, failures) = edge(&added, side).map_or((0, 0), |e| (e.requests, e.failures));
        found.check(
            counted == load.sent,
            format!("{} requests at the {side}, saw {counted}", load.sent),
        );
        found.check(
            failures == load.failed(),
            format!("{} failures at the {side}, saw {failures}", load.failed()),
        );
    }
    let source = edge(&added, "source").ok_or("the caller's side has counted nothing")?;
    let mut apart = Vec::new();
    for (name, seen, quantile) in [("p50", source.p50_us, 0.5), ("p90", source.p90_us, 0.9)] {
        let (sidecar, caller) = (
            Duration::from_micros(seen.unwrap_or_default()),
            load.quantile(quantile),
        );
        // Beyond the median a busy machine shows: the caller is a process of its own, and waits for its turn.
        let near = caller <= sidecar + ABOVE || quantile > 0.5;
        found.check(
            sidecar <= caller + BELOW && near,
            format!(
                "{name} of the caller {ABOVE:?} above that of the sidecar at most, saw {caller:?} and {sidecar:?}"
            ),
        );
        apart.push((name, round(sidecar), round(caller)));
    }
    found.figure(format!(
        "p50 {:.1} ms, {} requests",
        source.p50_us.unwrap_or_default() as f64 / 1e3,
        load.sent
    ));
    found.detail("load", load.detail());
    found.detail("edges", &added);
    found.detail("sidecar_and_caller_ms", apart);
    found.detail("caller_may_be_above_ms", round(ABOVE));
    mesh.edges = Some(crate::command::top::table(&added));
    Ok(found)
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
