//! `latency`: the table of edges, from the sidecars' own telemetry, against what the load generator saw.

use std::time::Duration;

use weft_control::Edge;

use super::super::load::Load;
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::wait::{Deadline, eventually};

/// Requests a second, and for how long.
const RATE: u32 = 300;
const LASTS: Duration = Duration::from_millis(2000);

/// How far the caller's own median may be above the sidecar's: the way between the two processes and the
/// scheduling of a busy machine. The sidecar's histogram adds its buckets' width.
const TOLERANCE: Duration = Duration::from_millis(3);

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
    for side in ["source", "destination"] {
        let (was, is) = (edge(&settled, side), edge(&edges, side));
        let counted = is.map_or(0, |e| e.requests) - was.map_or(0, |e| e.requests);
        found.check(
            counted == load.sent,
            format!("{} requests at the {side}, saw {counted}", load.sent),
        );
        let failures = is.map_or(0, |e| e.failures) - was.map_or(0, |e| e.failures);
        found.check(
            failures == load.failed(),
            format!("{} failures at the {side}, saw {failures}", load.failed()),
        );
    }
    let p50 = edge(&edges, "source")
        .and_then(|edge| edge.p50_us)
        .map_or(Duration::ZERO, Duration::from_micros);
    let apart = p50.abs_diff(load.quantile(0.5));
    found.check(
        apart <= TOLERANCE,
        format!(
            "medians within {TOLERANCE:?}, saw {p50:?} and {:?}",
            load.quantile(0.5)
        ),
    );
    let table = crate::command::top::table(&edges);
    found.figure(format!(
        "p50 {:.1} ms of {} requests",
        p50.as_secs_f64() * 1e3,
        load.sent
    ));
    found.detail("load", load.detail());
    found.detail("edges", &edges);
    found.detail("p50_apart_ms", super::super::load::round(apart));
    found.detail("p50_tolerance_ms", super::super::load::round(TOLERANCE));
    mesh.edges = Some(table);
    Ok(found)
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
