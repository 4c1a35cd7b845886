//! What `weft status` shows.

use std::time::SystemTime;

use crate::admin::types::{ControlStatus, SidecarState, SidecarStatus, Status};
use crate::node::Node;
use crate::problem::Reject;
use crate::registry::{Sidecar, nack_info};
use crate::time::{seconds_left, unix_s};

/// The control node and every sidecar it knows, also those that were lost within the last day.
pub(crate) fn status(node: &Node) -> Result<Status, Reject> {
    let now = node.env.wall();
    let mut sidecars: Vec<SidecarStatus> = node.registry.read(|table| {
        table
            .iter()
            .map(|s| (s, SidecarState::Away))
            .chain(table.lost().map(|s| (s, SidecarState::Gone)))
            .map(|(s, unless_live)| sidecar(s, unless_live, now))
            .collect()
    });
    sidecars.sort_by(|a, b| (&a.service, &a.instance).cmp(&(&b.service, &b.instance)));
    let not_after = node.own.source.current().svid.not_after();
    Ok(Status {
        control: ControlStatus {
            version: crate::VERSION.to_owned(),
            pid: std::process::id(),
            trust_domain: node.settings.trust_domain.to_string(),
            spiffe_id: node.own.id.to_string(),
            mesh_addr: node.mesh_addr,
            revision: node.feed.revision(),
            uptime_s: node.started.elapsed().as_secs(),
            pin: node.ca.authority().pin()?.to_string(),
            certificate_seconds_left: seconds_left(not_after, now),
            refusals: (node.refusals)()
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
        },
        sidecars,
    })
}

fn sidecar(sidecar: &Sidecar, unless_live: SidecarState, now: SystemTime) -> SidecarStatus {
    let report = sidecar.report.as_ref();
    SidecarStatus {
        spiffe_id: sidecar.identity.to_string(),
        service: sidecar.service.to_string(),
        instance: sidecar.instance.clone(),
        identity_from: sidecar.identity_from.clone(),
        version: sidecar.version.clone(),
        pid: sidecar.pid,
        addr: sidecar.addr,
        state: match sidecar.is_live() {
            true => SidecarState::Live,
            false => unless_live,
        },
        since_unix_ms: sidecar.since_unix_ms,
        acked_revision: sidecar.acked.as_ref().map(|acked| acked.ack.revision),
        in_force_unix_ms: sidecar.acked.as_ref().map(|a| a.ack.in_force_unix_ms),
        nack: nack_info(sidecar),
        serial: sidecar.serial.clone(),
        issuer: sidecar.issuer().to_owned(),
        not_after_unix: sidecar.not_after_unix,
        certificate_seconds_left: i64::try_from(sidecar.not_after_unix).unwrap_or(i64::MAX)
            - i64::try_from(unix_s(now)).unwrap_or(i64::MAX),
        connections: report.map_or_else(Vec::new, |report| report.connections.clone()),
        unreachable: report.map_or_else(Vec::new, |report| report.unreachable.clone()),
        rtt_us: report.map_or(0, |report| report.control_rtt_us),
        transport: report.map_or_else(String::new, |report| report.control_transport.clone()),
        refusals: report.map_or_else(Default::default, |report| report.refusals.clone()),
        unsaved: sidecar.unsaved.clone(),
        earlier: report.map_or_else(Vec::new, |report| report.earlier.clone()),
    }
}
