//! `request`: one HTTP request from application to application, and who saw whom.

use std::time::Duration;

use super::super::load::round;
use super::super::mesh::Mesh;
use super::super::report::Findings;
use super::super::wait::{Deadline, eventually};

const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";
const INVOICES: &str = "spiffe://weft.local/ns/default/sa/invoices";

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "app → sidecar → HTTP/3 over QUIC, mutual TLS → sidecar → app: both ends proved who they are",
    );
    let reply = mesh.get("orders", "invoices", "/echo").await?;
    let echo = reply.json();
    found.figure(format!("{:.1} ms", round(reply.took)));
    found.check(
        reply.status == 200,
        format!("status 200, saw {}: {}", reply.status, reply.text()),
    );

    let xfcc = echo["headers"]["x-forwarded-client-cert"]
        .as_str()
        .unwrap_or_default();
    found.check(
        xfcc.contains(&format!("URI={ORDERS}")) && xfcc.contains(&format!("By={INVOICES}")),
        format!("x-forwarded-client-cert with caller and callee, saw '{xfcc}'"),
    );
    found.check(
        echo["headers"]["x-request-id"].is_string(),
        "a request id at the application",
    );

    // What each side knows of its peer comes from the certificates, by way of their reports.
    let admin = mesh.admin();
    let (caller_saw, callee_saw) = eventually(
        Deadline::after(Duration::from_secs(5)),
        "both sidecars to report their connection",
        async || {
            let all = admin.status().await?;
            let saw = |service: &str, direction: &str, peer: &str| {
                all.iter()
                    .filter(|sidecar| sidecar.service == service)
                    .flat_map(|sidecar| &sidecar.connections)
                    .find(|c| c.direction == direction && c.peer == peer)
                    .map(|c| (c.peer.clone(), c.alpn.clone()))
            };
            let caller = saw("orders.default", "outbound", INVOICES);
            let callee = saw("invoices.default", "inbound", ORDERS);
            Ok(caller.zip(callee))
        },
    )
    .await?;
    let ((caller_saw, alpn), (callee_saw, callee_alpn)) = (caller_saw, callee_saw);
    found.check(
        alpn == "h3" && callee_alpn == "h3",
        format!("h3 agreed on by both sides, saw '{alpn}' and '{callee_alpn}'"),
    );
    found.detail("caller_saw_peer", caller_saw);
    found.detail("callee_saw_peer", callee_saw);
    found.detail("alpn", alpn);
    found.detail("status", reply.status.as_u16());
    found.detail("echo", echo);
    Ok(found)
}
