//! `impostor`: four that are not who they should be. Each is refused, and counted with its own reason.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use super::super::http;
use super::super::impostor::{Credentials, dial};
use super::super::mesh::{Mesh, Spec};
use super::super::report::Findings;
use super::super::wait::{Deadline, eventually};

const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";
const INVOICES: &str = "spiffe://weft.local/ns/default/sa/invoices";

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "no certificate, a foreign CA, an identity without permission, a server with the wrong name: all refused, each counted",
    );
    let before = refusals(mesh).await?;
    strangers(mesh, &mut found).await?;
    wrong_server(mesh, &mut found).await?;
    not_allowed(mesh, &mut found).await?;

    let admin = mesh.admin();
    let expected = [
        ("invoices.default", "no_certificate"),
        ("invoices.default", "unknown_authority"),
        ("orders.default", "wrong_identity"),
    ];
    let after = eventually(
        Deadline::after(Duration::from_secs(5)),
        "the counters of refusals to rise",
        async || {
            let now = counted(&admin.status().await?);
            let risen = expected.iter().all(|(service, reason)| {
                let key = format!("{service} {reason}");
                now.get(&key).copied().unwrap_or(0) > before.get(&key).copied().unwrap_or(0)
            });
            Ok(risen.then_some(now))
        },
    )
    .await?;
    found.figure("4 refused");
    found.detail("refusals_before", before);
    found.detail("refusals_after", after);
    Ok(found)
}

/// Two that no handshake lets in: without certificate, and with one of another CA.
async fn strangers(mesh: &Mesh, found: &mut Findings) -> Result<(), String> {
    let target = mesh.sidecar("invoices-1")?.mesh;
    let foreign = Credentials::of_another_ca(&mesh.env, ORDERS)?;
    for (who, credentials) in [("no_certificate", None), ("foreign_ca", Some(foreign))] {
        let refused = dial(&mesh.env, target, INVOICES, credentials).await?;
        found.check(
            refused.is_some(),
            format!("the handshake refused for {who}, it was let in"),
        );
        found.detail(who, refused);
    }
    Ok(())
}

/// `ledger` has gone, and `intruder`, a member of the mesh, answers on its address.
async fn wrong_server(mesh: &mut Mesh, found: &mut Findings) -> Result<(), String> {
    mesh.start_app("ledger").await?;
    let app = mesh.apps["ledger"].http.to_string();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let ledger = Spec {
        name: "ledger",
        service: "ledger",
        apps: vec![app.clone()],
        tcp_listen: Vec::new(),
        listen: any,
    };
    mesh.start_sidecar(ledger).await?;
    let admin = mesh.admin();
    eventually(
        Deadline::after(Duration::from_secs(5)),
        "orders to learn of ledger",
        async || {
            let status = admin.full_status().await?;
            let newest = status.control.revision;
            let known = |service: &str| status.sidecars.iter().find(|s| s.service == service);
            let told = known("orders.default").and_then(|s| s.acked_revision) >= Some(newest);
            Ok((known("ledger.default").is_some() && told).then_some(()))
        },
    )
    .await?;
    let mut ledger = mesh
        .sidecars
        .remove("ledger")
        .ok_or("the sidecar 'ledger' is not running")?;
    ledger.process.kill().await?;
    let intruder = Spec {
        name: "intruder",
        service: "intruder",
        apps: vec![app],
        tcp_listen: Vec::new(),
        listen: ledger.mesh,
    };
    mesh.start_sidecar(intruder).await?;
    let reply = mesh.get("orders", "ledger", "/echo").await?;
    let reason = reply.header("proxy-status").to_owned();
    found.check(
        reply.status == 503 && reason.contains("wrong_identity"),
        format!(
            "503 for wrong_identity, saw {} with '{reason}'",
            reply.status
        ),
    );
    found.detail("wrong_identity", said(&reply));
    Ok(())
}

/// `intruder` proves who it is, and no policy lets it call `invoices`.
async fn not_allowed(mesh: &Mesh, found: &mut Findings) -> Result<(), String> {
    let reply = mesh.get("intruder", "invoices", "/echo").await?;
    let reason = reply.header("proxy-status").to_owned();
    found.check(
        reply.status == 403 && reason.contains("rule="),
        format!(
            "403 with the rule that refused, saw {} with '{reason}'",
            reply.status
        ),
    );
    found.detail("not_allowed", said(&reply));

    // It is counted where it was refused, as a 403 of this very caller.
    let mut counted = Vec::new();
    for name in ["invoices-1", "invoices-2"] {
        let metrics = mesh.sidecar(name)?.metrics;
        let page = http::get(&mesh.env, metrics, "localhost", "/metrics").await?;
        counted.extend(
            page.text()
                .lines()
                .filter(|line| line.contains("intruder") && line.contains("403"))
                .map(str::to_owned),
        );
    }
    found.check(
        !counted.is_empty(),
        "a 403 for intruder in the metrics of invoices",
    );
    found.detail("counted_403", counted);
    Ok(())
}

fn said(reply: &http::Reply) -> serde_json::Value {
    serde_json::json!({
        "status": reply.status.as_u16(),
        "proxy_status": reply.header("proxy-status"),
        "body": reply.text(),
    })
}

async fn refusals(mesh: &Mesh) -> Result<BTreeMap<String, u64>, String> {
    Ok(counted(&mesh.admin().status().await?))
}

/// Refusals by service and reason.
fn counted(all: &[weft_control::SidecarStatus]) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for sidecar in all {
        for (reason, count) in &sidecar.refusals {
            *counted
                .entry(format!("{} {reason}", sidecar.service))
                .or_insert(0) += count;
        }
    }
    counted
}
