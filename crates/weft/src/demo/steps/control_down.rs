//! `control-down`: `kill -9` of the control node. Traffic does not notice, and it comes back as it was.

use std::time::Duration;

use tokio::time::Instant;
use weft_control::SidecarState;

use super::super::load::{Load, round};
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::resources;
use super::super::wait::{Deadline, eventually};

/// Requests a second.
const RATE: u32 = 250;

/// How long traffic has to do without a control node.
const DOWN: Duration = Duration::from_millis(1000);

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "traffic went on without the control node; it came back on its state and the sidecars came back to it",
    );
    let outbound = mesh.sidecar("orders")?.outbound;
    let config = mesh.weft_json(&["get"]).await?;
    let load = Load::start(&mesh.env, outbound, "invoices", "/echo", RATE);
    tokio::time::sleep(Duration::from_millis(200)).await;

    let control = mesh.control()?;
    let (listen, old_pid) = (control.mesh, control.process.pid);
    control.process.kill().await?;
    let gone = mesh.weft(&["status"]).await?;
    found.check(
        gone.code == Some(1),
        format!("no control node to answer, saw exit code {:?}", gone.code),
    );
    tokio::time::sleep(DOWN).await;
    mesh.start_control(listen).await?;
    let back = Instant::now();
    let admin = mesh.admin();
    eventually(
        Deadline::after(Duration::from_secs(10)),
        "the sidecars to come back by themselves",
        async || {
            let all = admin.status().await?;
            let connected = all.iter().filter(|s| s.state == SidecarState::Live).count();
            Ok((connected == 3).then_some(()))
        },
    )
    .await?;
    let reconnected = back.elapsed();

    // The resources, each with the revision that wrote it. The store's own revision has gone on: a control node
    // that starts certifies itself, and records it.
    let same = config["resources"] == mesh.weft_json(&["get"]).await?["resources"];
    found.check(same, "the config as it was");
    let pushed = mesh.apply("route.yaml", &resources::route("6s")).await?;
    found.check(
        pushed.code == Some(0),
        format!(
            "a new push to arrive everywhere, saw: {}",
            pushed.stderr.trim()
        ),
    );
    let load = load.stop().await?;
    found.check(
        load.failed() == 0,
        format!(
            "0 failed requests, saw {}: {:?}",
            load.failed(),
            load.failures
        ),
    );
    let dead = mesh.dead();
    found.check(
        dead.is_empty(),
        format!("no sidecar ended, saw {dead:?} end"),
    );
    let new_pid = mesh.control()?.process.pid;
    found.check(old_pid != new_pid, "a new process of the control node");
    found.figure(format!(
        "back in {:.0} ms, {} failed",
        round(reconnected),
        load.failed()
    ));
    found.detail("load", load.detail());
    found.detail("down_ms", round(DOWN));
    found.detail("reconnected_ms", round(reconnected));
    found.detail("pid_before", old_pid);
    found.detail("pid_after", new_pid);
    Ok(found)
}
