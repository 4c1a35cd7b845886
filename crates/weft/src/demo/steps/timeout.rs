//! `timeout`: 10 s becomes 5 s for every running sidecar, and nothing restarts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;
use weft_control::SidecarStatus;
use weft_wire::ConnectionReport;

use super::super::http;
use super::super::load::round;
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::resources;
use super::super::wait::{Deadline, eventually};

/// A request that takes longer than the new timeout and less than the old one.
const SLOW: &str = "/slow?ms=7000";

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "10 s became 5 s for running sidecars: the request under way kept its 10 s, the next one ended at 5 s",
    );
    let admin = mesh.admin();
    let before = admin.status().await?;
    let outbound = mesh.sidecar("orders")?.outbound;
    let ask = || {
        let env = mesh.env.clone();
        mesh.env
            .spawn(async move { http::get(&env, outbound, "invoices", SLOW).await })
    };

    let under_way = ask();
    // It must have reached an application before the push, or it would follow the new timeout.
    let apps: Vec<_> = mesh.apps.values().map(|app| app.http).collect();
    eventually(
        Deadline::after(Duration::from_secs(3)),
        "the slow request to reach its application",
        async || {
            for app in &apps {
                let busy = http::get(&mesh.env, *app, "localhost", "/busy").await?;
                if busy.text() == "1" {
                    return Ok(Some(()));
                }
            }
            Ok(None)
        },
    )
    .await?;
    let applied_at = Instant::now();
    let ran = mesh.apply("route.yaml", &resources::route("5s")).await?;
    let apply_took = applied_at.elapsed();
    let receipts = ran.json("weft apply --wait")?;
    let after_push = ask();

    let ended = |task: Result<Result<http::Reply, String>, _>| match task {
        Ok(reply) => reply,
        Err(error) => Err(format!("a request was lost: {error}")),
    };
    let first = ended(under_way.await)?;
    let second = ended(after_push.await)?;

    found.check(
        first.status == 200 && within(first.took, 7.0, 0.3),
        format!(
            "200 at 7 s for the request under way, saw {} at {:.3} s",
            first.status,
            first.took.as_secs_f64()
        ),
    );
    found.check(
        second.status == 504 && within(second.took, 5.0, 0.1),
        format!(
            "504 at 5 s for the next request, saw {} at {:.3} s",
            second.status,
            second.took.as_secs_f64()
        ),
    );
    let reason = second.header("proxy-status");
    found.check(
        reason.contains("http_response_timeout"),
        format!("its reason in proxy-status, saw '{reason}'"),
    );

    let after = admin.status().await?;
    let dead = mesh.dead();
    found.check(
        dead.is_empty(),
        format!("no process ended, saw {dead:?} end"),
    );
    found.check(
        pids(&before) == pids(&after),
        format!(
            "the same processes, saw {:?} and then {:?}",
            pids(&before),
            pids(&after)
        ),
    );
    let lost = lost(&before, &after);
    found.check(
        lost.is_empty(),
        format!("every connection kept, saw {lost:?} closed"),
    );

    let in_force = receipts["wait"]["receipts"].as_array().map_or(0, Vec::len);
    found.check(
        in_force == 3,
        format!("a receipt of all 3 sidecars, saw {in_force}"),
    );
    let push_ms = receipts["last_receipt_ms"].as_f64();
    found.check(push_ms.is_some(), "the time of the last receipt");
    let push_ms = push_ms.unwrap_or_default();
    found.figure(format!("push {push_ms:.1} ms"));
    found.detail("push_to_last_ack_ms", push_ms);
    found.detail("apply_command_ms", round(apply_took));
    found.detail("receipts", &receipts["wait"]["receipts"]);
    found.detail("under_way", ended_as(&first));
    found.detail("after_push", ended_as(&second));
    found.detail(
        "pids",
        serde_json::json!({ "before": pids(&before), "after": pids(&after) }),
    );
    let connections = serde_json::json!({
        "before": streams(&before),
        "after": streams(&after),
        "closed": lost,
    });
    found.detail("streams_by_connection", connections);
    Ok(found)
}

fn within(took: Duration, seconds: f64, tolerance: f64) -> bool {
    (took.as_secs_f64() - seconds).abs() <= tolerance
}

fn ended_as(reply: &http::Reply) -> Value {
    serde_json::json!({
        "status": reply.status.as_u16(),
        "seconds": round(reply.took) / 1000.0,
        "proxy_status": reply.header("proxy-status"),
    })
}

fn pids(all: &[SidecarStatus]) -> BTreeMap<&str, u32> {
    all.iter().map(|s| (s.instance.as_str(), s.pid)).collect()
}

/// The mesh connections that sidecars report, with the streams that each has carried.
fn streams(all: &[SidecarStatus]) -> BTreeMap<String, u64> {
    let key = |s: &SidecarStatus, c: &ConnectionReport| {
        format!("{} {} {} {}", s.instance, c.direction, c.peer, c.addr)
    };
    all.iter()
        .flat_map(|s| s.connections.iter().map(move |c| (key(s, c), c.streams)))
        .collect()
}

/// Mesh connections that were there before and are not now, or have started to count anew.
fn lost(before: &[SidecarStatus], after: &[SidecarStatus]) -> Vec<String> {
    let now = streams(after);
    streams(before)
        .into_iter()
        .filter(|(key, streams)| now.get(key).is_none_or(|now| now < streams))
        .map(|(key, _)| key)
        .collect()
}
