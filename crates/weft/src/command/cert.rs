//! `weft cert show` and `weft cert rotate`.

use weft_control::{RotateCerts, SidecarState, SidecarStatus};

use super::admin::{connect, failed, left};
use super::rotation;
use crate::cli::CertCommand;
use crate::failure::Failure;
use crate::output::{self, Table};

pub(super) async fn run(command: CertCommand) -> Result<(), Failure> {
    match command {
        CertCommand::Show { admin, output } => {
            let status = connect(&admin).await?.status().await.map_err(failed)?;
            let certificates: Vec<_> = status.sidecars.iter().map(certificate).collect();
            output::show(output.output, &certificates, || table(&status.sidecars))
        }
        CertCommand::Rotate {
            admin,
            all: _,
            service,
            instance,
            timeout,
            output,
        } => {
            let request = RotateCerts {
                services: service.into_iter().map(full_name).collect(),
                instances: instance,
                within_ms: None,
                timeout_ms: timeout.as_millis().try_into().ok(),
            };
            let client = connect(&admin).await?;
            let stream = client.rotate_certs(&request).await.map_err(failed)?;
            rotation::follow("rotate certificates", stream, output.output).await
        }
    }
}

/// `invoices` is `invoices.default`.
fn full_name(service: String) -> String {
    if service.contains('.') {
        service
    } else {
        format!("{service}.default")
    }
}

/// A sidecar's certificate as a program sees it.
fn certificate(sidecar: &SidecarStatus) -> serde_json::Value {
    serde_json::json!({
        "service": sidecar.service,
        "instance": sidecar.instance,
        "spiffe_id": sidecar.spiffe_id,
        "serial": sidecar.serial,
        "issuer": sidecar.issuer,
        "not_after_unix": sidecar.not_after_unix,
        "seconds_left": sidecar.certificate_seconds_left,
        "live": sidecar.state == SidecarState::Live,
    })
}

fn table(sidecars: &[SidecarStatus]) -> String {
    let mut table = Table::new(
        &["IDENTITY", "INSTANCE", "SERIAL", "ISSUER", "LEFT"],
        "no sidecar is connected",
    );
    for sidecar in sidecars {
        table.row([
            sidecar.spiffe_id.clone(),
            sidecar.instance.clone(),
            sidecar.serial.clone(),
            sidecar.issuer.clone(),
            left(sidecar.certificate_seconds_left),
        ]);
    }
    table.render()
}
