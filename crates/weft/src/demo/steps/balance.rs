//! `balance`: requests reach both instances, over one QUIC connection for each pair of nodes and identity.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use weft_control::SidecarStatus;
use weft_wire::ConnectionReport;

use super::super::http::Connection;
use super::super::load::round;
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::wait::{Deadline, eventually};

/// Requests, and how many are under way at a time.
const REQUESTS: u64 = 200;
const CONCURRENT: u64 = 8;

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of("both instances served, over one QUIC connection each");
    let admin = mesh.admin();
    let before = carried(&admin.status().await?);
    let outbound = mesh.sidecar("orders")?.outbound;

    let started = tokio::time::Instant::now();
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..CONCURRENT {
        let env = mesh.env.clone();
        workers.spawn(async move {
            let mut connection = Connection::open(&env, outbound).await?;
            let mut served = BTreeMap::new();
            for _ in 0..REQUESTS / CONCURRENT {
                let reply = connection.get("invoices", "/echo").await?;
                let by = match reply.status.as_u16() {
                    200 => reply.json()["instance"].as_str().unwrap_or("?").to_owned(),
                    status => format!("status {status}"),
                };
                *served.entry(by).or_insert(0_u64) += 1;
                if !connection.ready().await {
                    return Err("the sidecar closed a connection of its application".to_owned());
                }
            }
            Ok(served)
        });
    }
    let mut served: BTreeMap<String, u64> = BTreeMap::new();
    while let Some(worker) = workers.join_next().await {
        let part = worker.map_err(|error| format!("a worker ended: {error}"))??;
        for (by, count) in part {
            *served.entry(by).or_default() += count;
        }
    }
    found.figure(format!("{REQUESTS} in {:.0} ms", round(started.elapsed())));
    let both: Vec<&str> = served.keys().map(String::as_str).collect();
    found.check(
        both == ["invoices-1", "invoices-2"],
        format!("replies of both instances and nothing else, saw {served:?}"),
    );

    let (outbound, inbound) = eventually(
        Deadline::after(Duration::from_secs(5)),
        "the connections' counters to show every request",
        async || {
            let all = admin.status().await?;
            let enough = carried(&all) >= before + REQUESTS;
            Ok(enough.then(|| (connections(&all, "outbound"), connections(&all, "inbound"))))
        },
    )
    .await?;
    found.check(
        outbound.len() == 2,
        format!("one connection to each of the two instances, saw {outbound:?}"),
    );
    found.check(
        inbound.len() == 2,
        format!("one connection accepted by each instance, saw {inbound:?}"),
    );
    let addresses: std::collections::BTreeSet<&str> =
        outbound.iter().map(|c| c.addr.as_str()).collect();
    found.check(
        addresses.len() == outbound.len(),
        "a different node at the end of each connection",
    );
    found.detail("served", &served);
    let shown = |all: &[ConnectionReport]| -> Vec<_> {
        all.iter()
            .map(|c| json!({"peer": c.peer, "addr": c.addr, "streams": c.streams, "rtt_us": c.rtt_us}))
            .collect()
    };
    found.detail("connections_dialled", shown(&outbound));
    found.detail("connections_accepted", shown(&inbound));
    Ok(found)
}

/// The connections between orders and invoices, as the side in `direction` reports them.
fn connections(all: &[SidecarStatus], direction: &str) -> Vec<ConnectionReport> {
    let (service, peer) = match direction {
        "outbound" => ("orders.default", "/sa/invoices"),
        _ => ("invoices.default", "/sa/orders"),
    };
    all.iter()
        .filter(|sidecar| sidecar.service == service)
        .flat_map(|sidecar| &sidecar.connections)
        .filter(|c| c.direction == direction && c.peer.ends_with(peer))
        .cloned()
        .collect()
}

/// Requests that orders' connections to invoices have carried.
fn carried(all: &[SidecarStatus]) -> u64 {
    connections(all, "outbound").iter().map(|c| c.streams).sum()
}
