//! `weft cert`: certificates of sidecars.

use std::time::Duration;

use weft_certs::RevocationList;
use weft_control::{
    AdminClient, ReadmitRequest, RevokeRequest, Revoked, RotateCerts, SidecarState, SidecarStatus,
};

use super::admin::{connect, date, failed, left};
use super::{cert_files, rotation};
use crate::cli::CertCommand;
use crate::failure::Failure;
use crate::output::{self, Format, Table};

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
        CertCommand::Revoke {
            admin,
            target,
            reason,
            prove,
            timeout,
            output,
        } => {
            let request = RevokeRequest {
                spiffe_id: target.spiffe_id,
                key: target.key,
                serial: target.serial,
                reason,
            };
            let client = connect(&admin).await?;
            let revoked = client.revoke(&request).await.map_err(failed)?;
            if !prove {
                return output::show(output.output, &revoked, || ended(&revoked));
            }
            proved(&client, &revoked, timeout, output.output).await
        }
        CertCommand::Readmit { admin, spiffe_id } => {
            let client = connect(&admin).await?;
            let request = ReadmitRequest { spiffe_id };
            client.readmit(&request).await.map_err(failed)?;
            output::line(&format!(
                "{} may join again, with a new token; what it had before stays dead",
                request.spiffe_id
            ))
        }
        CertCommand::Revoked { admin, output } => {
            let list = connect(&admin).await?.revoked().await.map_err(failed)?;
            output::show(output.output, &list, || listed(&list))
        }
        CertCommand::Verify {
            file,
            bundle,
            output,
        } => cert_files::verify(&file, &bundle, output.output).await,
        CertCommand::Inspect { file, output } => cert_files::inspect(&file, output.output).await,
    }
}

fn ended(revoked: &Revoked) -> String {
    format!(
        "{} is revoked: {}, {}\n",
        revoked.target,
        output::counted(
            revoked.serials.len(),
            "live certificate is dead",
            "live certificates are dead"
        ),
        output::counted(revoked.tokens, "join token is void", "join tokens are void")
    )
}

/// Waits for the receipts, and says whose is missing.
async fn proved(
    client: &AdminClient,
    revoked: &Revoked,
    timeout: Duration,
    format: Format,
) -> Result<(), Failure> {
    let proof = client
        .prove(revoked.edition, revoked.at_unix_ms, timeout)
        .await
        .map_err(failed)?;
    let value = serde_json::json!({"revoked": revoked, "proof": proof});
    output::show(format, &value, || {
        let mut table = Table::new(
            &["SIDECAR", "REFUSED FROM", "CUT", "RECEIPT AFTER"],
            "no sidecar is connected",
        );
        for receipt in &proof.receipts {
            table.row([
                receipt.sidecar.clone(),
                date(receipt.refused_from_unix_ms / 1000),
                receipt.cut.to_string(),
                format!("{} ms", receipt.after_ms),
            ]);
        }
        let mut out = ended(revoked) + "\n" + &table.render();
        if !proof.ended.is_empty() {
            let cut_off = proof.ended.join(", ");
            out.push_str(&format!("\ncut off by it: {cut_off}\n"));
        }
        if !proof.asleep.is_empty() {
            out.push_str(&format!(
                "\nnot connected, told before they are let in again: {}\n",
                proof.asleep.join(", ")
            ));
        }
        out
    })?;
    match proof.absent.is_empty() {
        true => Ok(()),
        false => Err(Failure::new(
            "prove the revocation",
            format!("no receipt from {}", proof.absent.join(", ")),
            "the revocation stands; look at these sidecars: until they have it, they may let it in",
        )),
    }
}

fn listed(list: &RevocationList) -> String {
    let mut table = Table::new(&["KIND", "WHAT", "HOW FAR"], "nothing is revoked");
    for (id, entry) in &list.identities {
        let far = match entry.before_unix {
            Some(before) => format!("readmitted; certificates from before {}", date(before)),
            None => "altogether".to_owned(),
        };
        table.row(["identity".to_owned(), id.to_string(), far]);
    }
    for key in &list.keys {
        table.row(["key".to_owned(), key.to_string(), String::new()]);
    }
    for serial in &list.serials {
        table.row(["serial".to_owned(), serial.clone(), String::new()]);
    }
    table.render()
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
        "identity_from": sidecar.identity_from,
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
