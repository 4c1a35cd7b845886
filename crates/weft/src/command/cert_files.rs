//! `weft cert verify` and `weft cert inspect`: what a peer would say, without a mesh.

use std::path::Path;

use serde_json::Value;
use weft_certs::{
    BundleSet, Description, Finding, TrustBundle, TrustDomain, certificates, describe, explain,
};
use weft_env::Env;

use super::admin::left;
use super::ca_files::read;
use crate::failure::Failure;
use crate::output::{self, Format, Table};

/// Larger than any chain or bundle.
const MAX: usize = 4 * 1024 * 1024;

/// The bundles of a file: roots in PEM, a Bundle Map, or a JWK set, the latter and PEM taken as those of `domain`.
pub(super) async fn bundles(
    path: &Path,
    domain: Option<&TrustDomain>,
) -> Result<BundleSet, Failure> {
    let bytes = read(path, MAX).await?;
    let fail = |reason: String| {
        Failure::new(
            "read the bundle",
            format!("{}: {reason}", path.display()),
            "give PEM of roots (`weft ca export`), a sidecar's bundles.json, or a SPIFFE JWK set",
        )
    };
    let fallback = TrustDomain::parse("weft.local").expect("a legal name");
    let domain = domain.unwrap_or(&fallback).clone();
    let Ok(value) = serde_json::from_slice::<Value>(&bytes) else {
        let roots = certificates(&bytes).map_err(|error| fail(error.to_string()))?;
        return Ok(BundleSet::from(TrustBundle {
            trust_domain: domain,
            sequence: 0,
            roots,
            jwt_keys: Vec::new(),
        }));
    };
    if value.get("trust_domains").is_some() {
        return serde_json::from_value(value).map_err(|error| fail(error.to_string()));
    }
    TrustBundle::from_jwks(domain, &value)
        .map(BundleSet::from)
        .map_err(|error| fail(error.to_string()))
}

pub(super) async fn verify(file: &Path, bundle: &Path, format: Format) -> Result<(), Failure> {
    let chain = certificates(&read(file, MAX).await?)
        .map_err(|error| Failure::because("read the certificates", &error))?;
    let now = Env::system().wall();
    let described = chain.first().and_then(|leaf| describe(leaf, now).ok());
    let domain = described
        .as_ref()
        .and_then(|leaf| weft_certs::SpiffeId::parse(leaf.names.first()?).ok())
        .map(|id| id.trust_domain().clone());
    let bundles = bundles(bundle, domain.as_ref()).await?;
    let findings = explain(&chain, &bundles, now);
    output::show(format, &findings, || told(&findings))?;
    match findings.iter().find(|finding| finding.holds == Some(false)) {
        None => Ok(()),
        Some(broken) => Err(Failure::new(
            "verify",
            broken.reason.as_deref().unwrap_or(broken.rule),
            "see above which rule it breaks",
        )),
    }
}

fn told(findings: &[Finding]) -> String {
    let mut out = String::new();
    for finding in findings {
        let mark = match finding.holds {
            Some(true) => "yes",
            Some(false) => "NO ",
            None => " - ",
        };
        out.push_str(&format!("{mark}  {}\n", finding.rule));
        if let Some(reason) = &finding.reason {
            out.push_str(&format!("     {reason}\n"));
        }
    }
    out
}

pub(super) async fn inspect(file: &Path, format: Format) -> Result<(), Failure> {
    let now = Env::system().wall();
    let described = certificates(&read(file, MAX).await?)
        .map_err(|error| Failure::because("read the certificates", &error))?
        .iter()
        .map(|certificate| describe(certificate, now))
        .collect::<Result<Vec<Description>, _>>()
        .map_err(|error| Failure::because("inspect", &error))?;
    output::show(format, &described, || {
        described.iter().map(one).collect::<Vec<_>>().join("\n")
    })
}

fn one(certificate: &Description) -> String {
    let mut table = Table::new(&["", certificate.role], "");
    let mut row = |name: &str, value: &str| table.row([name.to_owned(), value.to_owned()]);
    row("names", &certificate.names.join(", "));
    row("subject", &certificate.subject);
    row("issuer", &certificate.issuer);
    row("serial", &certificate.serial);
    row("key", &certificate.key);
    row("begins", &certificate.not_before);
    row(
        "ends",
        &format!(
            "{} ({})",
            certificate.not_after,
            left(certificate.seconds_left)
        ),
    );
    if let Some(site) = &certificate.site {
        row("site", site);
        row("for", &certificate.permitted.join(", "));
    }
    if let Some(fault) = &certificate.fault {
        row("breaks", fault);
    }
    table.render()
}
