//! `weft status`.

use std::fmt::Write as _;
use std::time::Duration;

use weft_control::{SidecarState, Status};

use super::admin::{connect, failed, left};
use crate::cli::StatusArgs;
use crate::failure::Failure;
use crate::output::{self, Table};

pub(super) async fn run(args: StatusArgs) -> Result<(), Failure> {
    let status = connect(&args.admin).await?.status().await.map_err(failed)?;
    output::show(args.output.output, &status, || shown(&status))
}

fn shown(status: &Status) -> String {
    let control = &status.control;
    let mut out = format!(
        "control  {} {} pid {}, up {}, revision {}, certificate {}\n\n",
        control.mesh_addr,
        control.version,
        control.pid,
        output::span(Duration::from_secs(control.uptime_s)),
        control.revision,
        left(control.certificate_seconds_left)
    );
    let mut table = Table::new(
        &[
            "SERVICE",
            "INSTANCE",
            "STATE",
            "VERSION",
            "REVISION",
            "CERTIFICATE",
            "CONNS",
            "RTT",
            "ADDRESS",
        ],
        "no sidecar has connected; start one with: weft sidecar --control … --token-file …",
    );
    for sidecar in &status.sidecars {
        let state = match sidecar.state {
            SidecarState::Live => "live",
            SidecarState::Gone => "gone",
        };
        let revision = sidecar
            .acked_revision
            .map_or_else(|| "none".to_owned(), |revision| revision.to_string());
        let refused = if sidecar.nack.is_some() {
            " (refused)"
        } else {
            ""
        };
        let rtt = match sidecar.rtt_us {
            0 => String::new(),
            us => output::millis(us),
        };
        table.row([
            sidecar.service.clone(),
            sidecar.instance.clone(),
            state.to_owned(),
            sidecar.version.clone(),
            format!("{revision}{refused}"),
            left(sidecar.certificate_seconds_left),
            sidecar.connections.len().to_string(),
            rtt,
            sidecar.addr.to_string(),
        ]);
    }
    out.push_str(&table.render());
    for nack in status
        .sidecars
        .iter()
        .filter_map(|sidecar| sidecar.nack.as_ref())
    {
        let key = nack.key.as_deref().unwrap_or("the config");
        let _ = write!(
            out,
            "\n{}/{} refused revision {}: {key}: {}\n",
            nack.service, nack.instance, nack.revision, nack.reason
        );
    }
    out
}
