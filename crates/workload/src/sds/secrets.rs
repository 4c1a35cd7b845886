//! From names to secrets: pure. The names are those that SPIRE's agent knows.

use bytes::Bytes;
use weft_certs::{Identity, TrustBundle, to_pem};
use zeroize::Zeroizing;

use crate::proto::sds::{
    ExtensionConfig, SPIFFE_VALIDATOR, Secret, SpiffeValidator, TlsCertificate, TrustedDomain,
    ValidationContext, kind,
};
use crate::proto::{Any, secret};

/// The SVID, whoever it names.
const DEFAULT: &str = "default";
/// The roots of the own trust domain.
const OWN_ROOTS: &str = "ROOTCA";
/// The roots of all trust domains, kept apart.
const ALL_ROOTS: &str = "ALL";

/// How Envoy judges its peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Validation {
    /// By the SPIFFE validator: each peer against the roots of its own trust domain.
    #[default]
    Spiffe,
    /// By Envoy's own validator, which knows one list of roots.
    Plain,
}

/// Names for which there is nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no secret for this workload named {}", .0.join(", "))]
pub(crate) struct Unknown(pub(crate) Vec<String>);

/// The secrets with these names; all, if none is named.
pub(crate) fn secrets(
    identity: &Identity,
    names: &[String],
    validation: Validation,
) -> Result<Vec<Any>, Unknown> {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    let wanted = match names {
        [] => everything(identity),
        _ => names.to_vec(),
    };
    for name in wanted {
        match one(identity, &name, validation) {
            Some(secret) => found.push(Any::pack(kind::SECRET, &secret)),
            None => unknown.push(name),
        }
    }
    match unknown.is_empty() {
        true => Ok(found),
        false => Err(Unknown(unknown)),
    }
}

fn everything(identity: &Identity) -> Vec<String> {
    let domains = identity.bundles.iter().map(|b| b.trust_domain.id());
    std::iter::once(identity.svid.id().clone())
        .chain(domains)
        .map(|id| id.to_string())
        .collect()
}

fn one(identity: &Identity, name: &str, validation: Validation) -> Option<Secret> {
    let id = identity.svid.id();
    if name == DEFAULT || name == id.as_str() {
        return Some(certificate(identity, name));
    }
    let bundles: Vec<&TrustBundle> = match name {
        ALL_ROOTS => identity.bundles.iter().collect(),
        OWN_ROOTS => identity
            .bundles
            .get(id.trust_domain())
            .into_iter()
            .collect(),
        _ => identity
            .bundles
            .iter()
            .filter(|bundle| bundle.trust_domain.id().as_str() == name)
            .collect(),
    };
    let context = match (validation, bundles.as_slice()) {
        (_, []) => return None,
        (Validation::Spiffe, bundles) => by_domain(bundles),
        (Validation::Plain, [bundle]) => plain(bundle),
        // Workload API §4.6: roots of different trust domains are never put into one list.
        (Validation::Plain, _) => return None,
    };
    Some(Secret {
        name: name.to_owned(),
        tls_certificate: None,
        validation_context: Some(context),
    })
}

fn certificate(identity: &Identity, name: &str) -> Secret {
    let svid = &identity.svid;
    let key = svid.key_pem();
    Secret {
        name: name.to_owned(),
        tls_certificate: Some(TlsCertificate {
            certificate_chain: Some(Bytes::from(svid.chain_pem()).into()),
            private_key: Some(secret(Zeroizing::new(key.as_bytes().to_vec())).into()),
        }),
        validation_context: None,
    }
}

fn by_domain(bundles: &[&TrustBundle]) -> ValidationContext {
    let trust_domains = bundles
        .iter()
        .map(|bundle| TrustedDomain {
            name: bundle.trust_domain.to_string(),
            trust_bundle: Some(roots(bundle).into()),
        })
        .collect();
    let config = SpiffeValidator { trust_domains };
    ValidationContext {
        trusted_ca: None,
        custom_validator_config: Some(ExtensionConfig {
            name: SPIFFE_VALIDATOR.to_owned(),
            typed_config: Some(Any::pack(kind::SPIFFE_VALIDATOR, &config)),
        }),
    }
}

fn plain(bundle: &TrustBundle) -> ValidationContext {
    ValidationContext {
        trusted_ca: Some(roots(bundle).into()),
        custom_validator_config: None,
    }
}

fn roots(bundle: &TrustBundle) -> Bytes {
    let pem: String = bundle.roots.iter().map(to_pem).collect();
    pem.into()
}

#[cfg(test)]
#[path = "secrets_tests.rs"]
mod tests;
