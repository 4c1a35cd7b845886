//! `rotate`: every leaf, then the issuing CA, under steady load.

use std::collections::BTreeMap;
use std::time::Duration;

use weft_control::SidecarStatus;

use super::super::load::Load;
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::wait::{Deadline, eventually};

/// Requests a second.
const RATE: u32 = 250;

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "all leaves, then the issuing CA, replaced under load without one failed request",
    );
    let outbound = mesh.sidecar("orders")?.outbound;
    let before = mesh.admin().status().await?;
    let load = Load::start(&mesh.env, outbound, "invoices", "/echo", RATE);
    tokio::time::sleep(Duration::from_millis(500)).await;

    let leaves = mesh.weft_json(&["cert", "rotate", "--all"]).await?;
    let rotated = changed(mesh, &before, |s| &s.serial, "new serials").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let ca = mesh.weft_json(&["ca", "rotate"]).await?;
    let reissued = changed(mesh, &rotated, |s| &s.issuer, "a new issuer").await?;
    tokio::time::sleep(Duration::from_millis(500)).await;

    let load = load.stop().await?;
    found.check(
        load.failed() == 0,
        format!(
            "0 failed requests, saw {}: {:?}",
            load.failed(),
            load.failures
        ),
    );
    found.check(
        load.rate() >= 200.0,
        format!("at least 200 requests a second, saw {:.0}", load.rate()),
    );
    found.figure(format!("{} requests, {} failed", load.sent, load.failed()));
    found.detail("load", load.detail());
    found.detail("serials_before", by_instance(&before, |s| &s.serial));
    found.detail("serials_after_leaves", by_instance(&rotated, |s| &s.serial));
    found.detail("serials_after_ca", by_instance(&reissued, |s| &s.serial));
    found.detail("issuer_before", by_instance(&before, |s| &s.issuer));
    found.detail("issuer_after", by_instance(&reissued, |s| &s.issuer));
    found.detail("cert_rotate", leaves);
    found.detail("ca_rotate", ca);
    Ok(found)
}

/// Waits until a field of every sidecar differs from `before`.
async fn changed(
    mesh: &Mesh,
    before: &[SidecarStatus],
    field: impl Fn(&SidecarStatus) -> &String,
    what: &str,
) -> Result<Vec<SidecarStatus>, String> {
    let old = by_instance(before, &field);
    let admin = mesh.admin();
    eventually(
        Deadline::after(Duration::from_secs(8)),
        &format!("{what} on every sidecar"),
        async || {
            let all = admin.status().await?;
            let new = by_instance(&all, &field);
            let all_new = old
                .iter()
                .all(|(instance, was)| new.get(instance).is_some_and(|is| is != was));
            Ok(all_new.then_some(all))
        },
    )
    .await
}

fn by_instance(
    all: &[SidecarStatus],
    field: impl Fn(&SidecarStatus) -> &String,
) -> BTreeMap<String, String> {
    all.iter()
        .map(|s| (format!("{}/{}", s.service, s.instance), field(s).clone()))
        .collect()
}
