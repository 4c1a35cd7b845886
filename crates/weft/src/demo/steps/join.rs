//! `join`: three sidecars join with one-time tokens and the root's pin, and get their identities.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::json;
use weft_control::SidecarState;

use super::super::load::round;
use super::super::mesh::{Mesh, Spec, TCP_PORT};
use super::super::report::Findings;
use super::super::resources;
use super::super::wait::{Deadline, eventually};

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "three sidecars joined with a one-time token and the root's pin; each has an identity for an hour",
    );
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    for name in ["invoices-1", "invoices-2"] {
        mesh.start_app(name).await?;
    }
    let started = tokio::time::Instant::now();
    for name in ["invoices-1", "invoices-2"] {
        let app = &mesh.apps[name];
        let apps = vec![app.http.to_string(), format!("tcp/{TCP_PORT}={}", app.tcp)];
        let spec = Spec {
            name,
            service: "invoices",
            apps,
            tcp_listen: Vec::new(),
            listen: any,
        };
        mesh.start_sidecar(spec).await?;
    }
    let spec = Spec {
        name: "orders",
        service: "orders",
        apps: Vec::new(),
        tcp_listen: vec![format!("127.0.0.1:0=invoices:{TCP_PORT}")],
        listen: any,
    };
    mesh.start_sidecar(spec).await?;
    found.figure(format!("3 in {:.0} ms", round(started.elapsed())));

    for (file, yaml) in [
        ("policy.yaml", resources::ONLY_ORDERS.to_owned()),
        ("route.yaml", resources::route("10s")),
    ] {
        let ran = mesh.apply(file, &yaml).await?;
        found.check(
            ran.code == Some(0),
            format!("{file} in force everywhere, saw: {}", ran.stderr.trim()),
        );
    }

    let admin = mesh.admin();
    let sidecars = eventually(
        Deadline::after(Duration::from_secs(5)),
        "all three sidecars to report",
        async || {
            let all = admin.status().await?;
            let reported = all
                .iter()
                .filter(|s| s.state == SidecarState::Live && !s.issuer.is_empty())
                .count();
            Ok((reported == 3).then_some(all))
        },
    )
    .await?;
    let serials: BTreeSet<&str> = sidecars.iter().map(|s| s.serial.as_str()).collect();
    found.check(
        serials.len() == 3,
        format!("three different serials, saw {serials:?}"),
    );
    let mut ids: Vec<&str> = sidecars.iter().map(|s| s.spiffe_id.as_str()).collect();
    ids.sort_unstable();
    let expected = [
        "spiffe://weft.local/ns/default/sa/invoices",
        "spiffe://weft.local/ns/default/sa/invoices",
        "spiffe://weft.local/ns/default/sa/orders",
    ];
    found.check(
        ids == expected,
        format!("the identities {expected:?}, saw {ids:?}"),
    );
    for sidecar in &sidecars {
        let left = sidecar.certificate_seconds_left;
        found.check(
            (3000..=3700).contains(&left),
            format!("an hour of life for {}, saw {left} s", sidecar.instance),
        );
    }
    let rows: Vec<_> = sidecars
        .iter()
        .map(|s| {
            json!({
                "spiffe_id": s.spiffe_id,
                "instance": s.instance,
                "serial": s.serial,
                "issuer": s.issuer,
                "expires_unix": s.not_after_unix,
                "pid": s.pid,
            })
        })
        .collect();
    found.detail("sidecars", rows);
    Ok(found)
}
