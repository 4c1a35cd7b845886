//! `weft ca`: the authority.

use weft_control::{AdminClient, CaInfo, CaPlan, EvidenceInfo, RotateCa, SlotReply, SlotRequest};

use super::admin::{connect, date, failed, left};
use super::{audit, ca_files, delegate, rotation};
use crate::cli::{CaCommand, CaRole};
use crate::failure::Failure;
use crate::output::{self, Format, Table};

pub(super) async fn run(command: CaCommand) -> Result<(), Failure> {
    match command {
        CaCommand::Show { admin, output } => {
            let ca = connect(&admin).await?.ca().await.map_err(failed)?;
            output::show(output.output, &ca, || table(&ca))
        }
        CaCommand::Rotate {
            admin,
            role,
            now,
            dry_run,
            allow_missing,
            timeout,
            output,
        } => {
            let request = RotateCa {
                within_ms: None,
                timeout_ms: timeout.as_millis().try_into().ok(),
                root: role == CaRole::Root,
                now,
                allow_missing,
            };
            let client = connect(&admin).await?;
            if dry_run {
                let plan = client.plan_ca(&request).await.map_err(failed)?;
                return output::show(output.output, &plan, || steps(&plan));
            }
            let what = format!("rotate the {} authority", role.as_str());
            let stream = client.rotate_ca(&request).await.map_err(failed)?;
            rotation::follow(&what, stream, output.output).await
        }
        CaCommand::Prepare {
            admin,
            role,
            output,
        } => {
            let client = connect(&admin).await?;
            let reply = client.prepare_ca(role.as_str()).await.map_err(failed)?;
            done("prepared", &reply, output.output)
        }
        CaCommand::Activate {
            admin,
            slot,
            allow_missing,
            output,
        } => {
            let request = SlotRequest {
                slot,
                allow_missing,
            };
            let reply = connect(&admin).await?.activate_ca(&request).await;
            done("active", &reply.map_err(failed)?, output.output)
        }
        CaCommand::Taint {
            admin,
            slot,
            output,
        } => {
            let request = SlotRequest {
                slot,
                allow_missing: false,
            };
            let reply = connect(&admin).await?.taint_ca(&request).await;
            done("tainted", &reply.map_err(failed)?, output.output)
        }
        CaCommand::Revoke {
            admin,
            slot,
            allow_missing,
            output,
        } => {
            let request = SlotRequest {
                slot,
                allow_missing,
            };
            let reply = connect(&admin).await?.revoke_ca(&request).await;
            done("trusted by nobody", &reply.map_err(failed)?, output.output)
        }
        CaCommand::Evidence {
            admin,
            number,
            check,
            pin,
            bundle,
            output,
        } => match check {
            Some(file) => ca_files::check(&file, pin, bundle.as_deref(), output.output).await,
            None => evidence(&connect(&admin).await?, number, output.output).await,
        },
        CaCommand::Audit {
            admin,
            verify,
            since,
            output,
        } => audit::run(&connect(&admin).await?, verify, since, output.output).await,
        CaCommand::Delegate(command) => delegate::command(command).await,
        files => with_files(files).await,
    }
}

async fn with_files(command: CaCommand) -> Result<(), Failure> {
    match command {
        CaCommand::Export { admin } => ca_files::export(&connect(&admin).await?).await,
        CaCommand::Csr { admin } => ca_files::csr(&connect(&admin).await?).await,
        CaCommand::Sign {
            root_dir,
            csr,
            trust_domain,
            key_type,
            ttl,
            keys,
        } => {
            let new = ca_files::NewRoot {
                trust_domain,
                key_type,
            };
            ca_files::sign(root_dir, &csr, new, ttl, &keys).await
        }
        CaCommand::Import {
            admin,
            file,
            output,
        } => {
            let reply = ca_files::import(&connect(&admin).await?, &file).await?;
            done("prepared", &reply, output.output)
        }
        CaCommand::Backup {
            admin,
            file,
            secret,
            keys,
        } => ca_files::backup(&admin, &file, &secret.secret_file, &keys).await,
        CaCommand::Restore {
            admin,
            file,
            secret,
            keys,
        } => ca_files::restore(&admin, &file, &secret.secret_file, &keys).await,
        _ => Ok(()),
    }
}

fn done(what: &str, reply: &SlotReply, format: Format) -> Result<(), Failure> {
    output::show(format, reply, || {
        let mut out = format!("{}: {what}\n", reply.slots.join(", "));
        if !reply.left_behind.is_empty() {
            out.push_str(&format!("left behind: {}\n", reply.left_behind.join(", ")));
        }
        out
    })
}

fn steps(plan: &CaPlan) -> String {
    let mut out = String::new();
    for (index, step) in plan.steps.iter().enumerate() {
        out.push_str(&format!("{:>2}. {step}\n", index + 1));
    }
    if !plan.asleep.is_empty() {
        out.push_str(&format!(
            "\nnot connected, with certificates: {}\n",
            plan.asleep.join(", ")
        ));
    }
    out
}

async fn evidence(
    client: &AdminClient,
    number: Option<u64>,
    format: Format,
) -> Result<(), Failure> {
    let all = client.evidence().await.map_err(failed)?;
    let Some(number) = number else {
        return output::show(format, &all, || list(&all));
    };
    let found = all.iter().find(|info| info.evidence.rotation == number);
    let Some(found) = found else {
        return Err(Failure::new(
            "show evidence",
            format!("there is none of rotation {number}"),
            "a rotation has evidence when it is over: `weft ca evidence` lists all",
        ));
    };
    // The document itself, whatever the format: it is to be kept in a file.
    let text = serde_json::to_string_pretty(&found.document)
        .map_err(|error| Failure::because("show evidence", &error))?;
    output::line(&text)
}

fn list(all: &[EvidenceInfo]) -> String {
    let mut table = Table::new(
        &[
            "NO",
            "ROLE",
            "FINISHED",
            "OLD",
            "RENEWED",
            "LEFT BEHIND",
            "LAST SEEN WITH THE OLD",
        ],
        "no rotation has finished yet",
    );
    for EvidenceInfo { evidence, .. } in all {
        let old = evidence
            .old
            .iter()
            .filter(|named| named.role == evidence.role);
        table.row([
            evidence.rotation.to_string(),
            evidence.role.clone(),
            date(evidence.finished_unix_ms / 1000),
            old.map(|named| named.name.clone())
                .collect::<Vec<_>>()
                .join(","),
            evidence.renewed.len().to_string(),
            evidence.missing.join(","),
            evidence
                .last_chain_to_old
                .as_ref()
                .map_or_else(String::new, |seen| {
                    format!("{} {}", date(seen.at_unix_ms / 1000), seen.sidecar)
                }),
        ]);
    }
    table.render()
}

fn table(ca: &CaInfo) -> String {
    let mut table = Table::new(
        &["NAME", "STATE", "UNDER", "SERIAL", "ENDS", "LEFT"],
        "the authority has no certificate",
    );
    for authority in &ca.authorities {
        let tainted = if authority.tainted { ", tainted" } else { "" };
        let elsewhere = match authority.key_here || authority.state == "removed" {
            true => "",
            false => ", key elsewhere",
        };
        table.row([
            authority.name.clone(),
            format!("{}{tainted}{elsewhere}", authority.state),
            authority.issuer.clone().unwrap_or_default(),
            authority.serial.clone(),
            date(authority.not_after_unix),
            left(authority.seconds_left),
        ]);
    }
    let tokens = match ca.token_keys.is_empty() {
        true => String::new(),
        false => format!("\n{}", token_keys(ca)),
    };
    let foreign: String = ca
        .foreign
        .iter()
        .map(|pin| format!("\nalso trusted, another provider's root (--trust-bundle): {pin}\n"))
        .collect();
    format!(
        "trust domain  {}\npin           {}\ncertificates  live {}\n\n{}{tokens}{foreign}",
        ca.trust_domain,
        ca.pin,
        output::span(std::time::Duration::from_secs(ca.leaf_ttl_s)),
        table.render()
    )
}

fn token_keys(ca: &CaInfo) -> String {
    let mut table = Table::new(&["TOKENS", "STATE", "SINCE", "KID"], "");
    for key in &ca.token_keys {
        table.row([
            key.name.clone(),
            key.state.clone(),
            date(key.since_unix),
            key.kid.clone(),
        ]);
    }
    table.render()
}
