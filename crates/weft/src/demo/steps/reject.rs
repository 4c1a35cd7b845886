//! `reject`: a broken resource, and one that a sidecar cannot use. Neither changes what runs.

use std::time::Duration;

use super::super::mesh::{Mesh, TCP_PORT};
use super::super::report::Findings;
use super::super::resources;
use super::super::wait::{Deadline, eventually};

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "a broken resource was refused with its line; one that a sidecar cannot use came back with its reason",
    );
    broken(mesh, &mut found).await?;
    unusable(mesh, &mut found).await?;
    Ok(found)
}

/// Refused on this machine, with file, line and column.
async fn broken(mesh: &Mesh, found: &mut Findings) -> Result<(), String> {
    let before = mesh.weft_json(&["get"]).await?;
    let ran = mesh
        .apply("broken.yaml", &resources::route("5 parsecs"))
        .await?;
    found.check(
        ran.code == Some(1),
        format!("exit code 1, saw {:?}", ran.code),
    );
    // The twelfth line holds the timeout, its value begins at the eighteenth column.
    let line = ran
        .stderr
        .lines()
        .find(|line| line.contains("broken.yaml:"))
        .unwrap_or_default()
        .trim();
    found.check(
        line.contains("broken.yaml:12:18:") && line.contains("5 parsecs"),
        format!("file, line, column and reason, saw '{line}'"),
    );
    let same = before == mesh.weft_json(&["get"]).await?;
    found.check(same, "the config as before a broken resource");
    let traffic = mesh.get("orders", "invoices", "/echo").await?.status;
    found.check(traffic == 200, format!("traffic as before, saw {traffic}"));
    found.detail("broken", line);
    Ok(())
}

/// Well-formed, accepted, and of no use to orders' sidecar: its port is taken.
async fn unusable(mesh: &Mesh, found: &mut Findings) -> Result<(), String> {
    let admin = mesh.admin();
    let revision = async || -> Result<Option<u64>, String> {
        let all = admin.status().await?;
        let orders = all.iter().find(|s| s.service == "orders.default");
        Ok(orders.and_then(|s| s.acked_revision))
    };
    let before = revision().await?;
    let held = mesh
        .env
        .listen(std::net::SocketAddr::from(([127, 0, 0, 1], 0)))
        .await
        .map_err(|error| format!("cannot hold a port: {error}"))?;
    let port = held
        .local_addr()
        .map_err(|error| format!("the held port has no address: {error}"))?;
    let ran = mesh
        .apply("taken.yaml", &resources::listener("taken", port, TCP_PORT))
        .await?;
    found.check(
        ran.code == Some(1),
        format!("exit code 1, saw {:?}", ran.code),
    );
    let said = ran.stderr.trim();
    found.check(
        said.contains("orders.default") && said.contains("in use"),
        format!("the sidecar's name and its reason, saw '{said}'"),
    );
    let nack = eventually(
        Deadline::after(Duration::from_secs(5)),
        "the refusal to show in the status",
        async || {
            let all = admin.status().await?;
            Ok(all.into_iter().find_map(|s| s.nack))
        },
    )
    .await?;
    found.check(
        nack.reason.contains("in use"),
        format!("the reason in the status, saw '{}'", nack.reason),
    );
    found.check(
        nack.key.as_deref().is_some_and(|key| key.contains("taken")),
        format!("the resource at fault, saw {:?}", nack.key),
    );
    let running = revision().await?;
    found.check(
        running == before,
        format!("orders to stay on revision {before:?}, saw {running:?}"),
    );
    let traffic = mesh.get("orders", "invoices", "/echo").await?.status;
    found.check(traffic == 200, format!("traffic as before, saw {traffic}"));

    let healed = mesh
        .weft(&[
            "delete",
            "OutboundListener",
            "taken",
            "--wait",
            "--timeout",
            "5s",
        ])
        .await?;
    found.check(
        healed.code == Some(0),
        format!(
            "every sidecar on the newest config again, saw: {}",
            healed.stderr.trim()
        ),
    );
    found.figure("2 refusals");
    found.detail(
        "nack",
        serde_json::json!({"reason": nack.reason, "key": nack.key, "revision": nack.revision}),
    );
    found.detail("running_revision", running);
    found.detail("apply_said", said);
    Ok(())
}
