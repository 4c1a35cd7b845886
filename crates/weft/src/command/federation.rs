//! `weft federation`.

use weft_certs::{SpiffeId, TrustDomain};
use weft_control::{FederateRequest, FederationInfo, Profile, Relation};

use super::admin::{connect, date, failed};
use super::ca_files::read;
use super::cert_files::bundles;
use crate::cli::{AddArgs, FederationCommand, ProfileName};
use crate::failure::Failure;
use crate::output::{self, Table};

/// Larger than any list of authorities.
const MAX_PEM: usize = 4 * 1024 * 1024;

pub(super) async fn run(command: FederationCommand) -> Result<(), Failure> {
    match command {
        FederationCommand::Add(args) => add(*args).await,
        FederationCommand::Remove {
            admin,
            trust_domain,
        } => {
            let client = connect(&admin).await?;
            client.end_federation(&trust_domain).await.map_err(failed)?;
            output::line(&format!("{trust_domain} is not accepted any more"))
        }
        FederationCommand::List { admin, output } => {
            let list = connect(&admin).await?.federations().await.map_err(failed)?;
            output::show(output.output, &list, || table(&list))
        }
        FederationCommand::Refresh {
            admin,
            trust_domain,
            output,
        } => {
            let client = connect(&admin).await?;
            let info = client
                .refresh_federation(&trust_domain)
                .await
                .map_err(failed)?;
            output::show(output.output, &info, || told(&info))?;
            fetched(&info)
        }
        FederationCommand::Bundle { admin } => {
            let bundle = connect(&admin).await?.bundle().await.map_err(failed)?;
            output::line(&bundle.to_jwks().to_string())
        }
    }
}

async fn add(args: AddArgs) -> Result<(), Failure> {
    let request = request(&args).await?;
    let client = connect(&args.admin).await?;
    let info = client.federate(&request).await.map_err(failed)?;
    output::show(args.output.output, &info, || told(&info))?;
    fetched(&info)
}

async fn request(args: &AddArgs) -> Result<FederateRequest, Failure> {
    let domain = &args.trust_domain;
    let profile = match args.profile {
        ProfileName::Spiffe => Profile::HttpsSpiffe {
            endpoint_spiffe_id: match &args.endpoint_id {
                Some(id) => id.clone(),
                None => control_of(domain)?,
            },
        },
        ProfileName::Web => Profile::HttpsWeb {
            ca: match &args.ca {
                Some(file) => Some(pem(file).await?),
                None => None,
            },
        },
    };
    let bundle = match &args.bundle {
        None => None,
        Some(file) => {
            let set = bundles(file, Some(domain)).await?;
            let bundle = set.get(domain).map(weft_certs::TrustBundle::to_jwks);
            Some(bundle.ok_or_else(|| {
                Failure::new(
                    "federate",
                    format!("{} has no bundle of {domain}", file.display()),
                    "print it on the other side with: weft federation bundle",
                )
            })?)
        }
    };
    Ok(FederateRequest {
        relation: Relation {
            trust_domain: domain.clone(),
            url: args.url.clone(),
            profile,
        },
        bundle,
    })
}

/// Who serves the bundle of a weft mesh.
fn control_of(domain: &TrustDomain) -> Result<SpiffeId, Failure> {
    SpiffeId::for_service(domain, weft_resources::SYSTEM_NAMESPACE, "control")
        .map_err(|error| Failure::because("federate", &error))
}

async fn pem(file: &std::path::Path) -> Result<String, Failure> {
    String::from_utf8(read(file, MAX_PEM).await?)
        .map_err(|error| Failure::because("read the authorities", &error))
}

/// Told and kept, but not whole: a failed fetch is tried again, and the exit code says that it is not there yet.
fn fetched(info: &FederationInfo) -> Result<(), Failure> {
    match &info.failed {
        None => Ok(()),
        Some(failed) => Err(Failure::new(
            "fetch the bundle",
            failed.reason.clone(),
            &format!(
                "the federation is kept and tried again every {} s; see: weft federation list",
                info.refresh_s
            ),
        )),
    }
}

fn told(info: &FederationInfo) -> String {
    let domain = &info.relation.trust_domain;
    match info.sequence {
        Some(sequence) => format!(
            "{domain} is accepted: edition {sequence} of its bundle, {} root(s), fetched every {} s",
            info.roots, info.refresh_s
        ),
        None => format!("{domain} will be accepted once its bundle is there"),
    }
}

fn table(list: &[FederationInfo]) -> String {
    let mut table = Table::new(
        &[
            "TRUST DOMAIN",
            "PROFILE",
            "URL",
            "EDITION",
            "ROOTS",
            "EVERY",
            "FETCHED",
            "LAST FAILURE",
        ],
        "this mesh accepts no other; add one with: weft federation add TRUST-DOMAIN --url https://…",
    );
    for info in list {
        table.row([
            info.relation.trust_domain.to_string(),
            info.relation.profile.as_str().to_owned(),
            info.relation.url.clone(),
            info.sequence
                .map_or_else(|| "-".to_owned(), |edition| edition.to_string()),
            info.roots.to_string(),
            format!("{} s", info.refresh_s),
            info.fetched_unix.map_or_else(|| "-".to_owned(), date),
            info.failed.as_ref().map_or_else(String::new, |failed| {
                format!("{}: {}", date(failed.at_unix), failed.reason)
            }),
        ]);
    }
    table.render()
}
