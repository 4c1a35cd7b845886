//! What `weft control --attest` names: who may join without a token, and as what. Nobody may who is not named here.

mod check;
mod pattern;
mod read;

use serde::Deserialize;

use crate::name::{NameError, SYSTEM_NAMESPACE, ServiceName, shorten};
use pattern::{Bindings, Form, Pattern};
pub use read::parse_attestors;

/// Everybody who may join without a token.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attestors {
    /// Machines with certificates of another authority.
    #[serde(default)]
    pub x509pop: Vec<MachineAttestor>,
    /// Pods of Kubernetes clusters.
    #[serde(default)]
    pub k8s: Vec<ClusterAttestor>,
}

/// An authority whose certificates prove which machine one is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct MachineAttestor {
    /// Its name in the audit log.
    pub name: String,
    /// File with its root certificates, PEM; relative to the directory of the file that names it.
    pub ca_file: String,
    /// The first that fits decides.
    rules: Vec<MachineRule>,
}

/// Which machines are what service. Exactly one of the first five is given.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct MachineRule {
    #[serde(default)]
    uri: Option<Pattern>,
    #[serde(default)]
    dns: Option<Pattern>,
    #[serde(default)]
    common_name: Option<Pattern>,
    #[serde(default)]
    certificate: Option<String>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    identity: Given,
}

/// A cluster whose service account tokens prove which pod one is.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ClusterAttestor {
    /// Its name in the audit log.
    pub name: String,
    /// File with its public keys, a JWK Set; relative to the directory of the file that names it.
    pub jwks_file: String,
    /// What `iss` of its tokens must say.
    pub issuer: String,
    /// What `aud` of its tokens must have.
    pub audience: String,
    /// The first that fits decides.
    rules: Vec<AccountRule>,
}

/// Which service accounts are what service: by default the one of the same namespace and name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct AccountRule {
    namespace: Pattern,
    service_account: Pattern,
    #[serde(default)]
    identity: Given,
}

/// The identity that a rule gives, as far as what it matched does not say it.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    #[serde(default)]
    namespace: Option<Form>,
    #[serde(default)]
    service: Option<Form>,
}

/// What a machine's certificate says.
#[derive(Debug, Clone, Copy)]
pub struct MachineNames<'a> {
    /// URI names.
    pub uris: &'a [String],
    /// DNS names, in lower case.
    pub dns: &'a [String],
    /// The common name.
    pub common_name: Option<&'a str>,
    /// `sha256:<64 hexadecimal digits>` of the certificate.
    pub certificate: &'a str,
    /// The same of its public key.
    pub key: &'a str,
}

/// Why no identity follows from what somebody has proven to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Unmapped {
    /// Nobody by the rules.
    #[error("no rule of {attestor} lets it in")]
    NoRule {
        /// Whose rules.
        attestor: String,
    },
    /// Several names of one certificate that stand for several services.
    #[error(
        "rule {rule} of {attestor} fits several of its names, which stand for different services"
    )]
    Ambiguous {
        /// Whose rules.
        attestor: String,
        /// Which, from 1.
        rule: usize,
    },
    /// What a rule makes of it is not the name of a service.
    #[error("rule {rule} of {attestor} makes no service of it: {reason}")]
    NotAService {
        /// Whose rules.
        attestor: String,
        /// Which, from 1.
        rule: usize,
        /// What is wrong with the name.
        reason: NameError,
    },
    /// weft's own nodes join by other means.
    #[error(
        "rule {rule} of {attestor} leads to the namespace {SYSTEM_NAMESPACE}, which is reserved for weft itself"
    )]
    Reserved {
        /// Whose rules.
        attestor: String,
        /// Which, from 1.
        rule: usize,
    },
}

impl MachineAttestor {
    /// The service that a machine may join as.
    ///
    /// # Errors
    /// [`Unmapped`].
    pub fn service(&self, names: &MachineNames<'_>) -> Result<ServiceName, Unmapped> {
        for (index, rule) in self.rules.iter().enumerate() {
            let place = RulePlace(&self.name, index + 1);
            let mut found: Option<ServiceName> = None;
            for bindings in rule.matches(names) {
                let service = place.service(&rule.identity, &bindings)?;
                if found.as_ref().is_some_and(|other| *other != service) {
                    return Err(place.ambiguous());
                }
                found = Some(service);
            }
            if let Some(service) = found {
                return Ok(service);
            }
        }
        Err(no_rule(&self.name))
    }
}

impl ClusterAttestor {
    /// The service that a service account may join as.
    ///
    /// # Errors
    /// [`Unmapped`].
    pub fn service(&self, namespace: &str, account: &str) -> Result<ServiceName, Unmapped> {
        let fits = |rule: &&(usize, &AccountRule)| {
            rule.1.namespace.matches(namespace).is_some()
                && rule.1.service_account.matches(account).is_some()
        };
        let rules: Vec<_> = self.rules.iter().enumerate().collect();
        let (index, rule) = rules.iter().find(fits).ok_or_else(|| no_rule(&self.name))?;
        let bindings = Bindings {
            namespace: Some(namespace.to_owned()),
            service: Some(account.to_owned()),
        };
        RulePlace(&self.name, index + 1).service(&rule.identity, &bindings)
    }
}

fn no_rule(attestor: &str) -> Unmapped {
    Unmapped::NoRule {
        attestor: attestor.to_owned(),
    }
}

/// A rule of an attestor, from 1.
struct RulePlace<'a>(&'a str, usize);

impl RulePlace<'_> {
    fn service(&self, given: &Given, bound: &Bindings) -> Result<ServiceName, Unmapped> {
        let part = |form: &Option<Form>, own: &Option<String>| match form {
            Some(form) => form.fill(bound),
            None => own.clone().unwrap_or_default(),
        };
        let namespace = part(&given.namespace, &bound.namespace);
        let name = part(&given.service, &bound.service);
        if namespace == SYSTEM_NAMESPACE {
            return Err(Unmapped::Reserved {
                attestor: self.0.to_owned(),
                rule: self.1,
            });
        }
        ServiceName::new(&namespace, &name).map_err(|reason| Unmapped::NotAService {
            attestor: self.0.to_owned(),
            rule: self.1,
            reason,
        })
    }

    fn ambiguous(&self) -> Unmapped {
        Unmapped::Ambiguous {
            attestor: self.0.to_owned(),
            rule: self.1,
        }
    }
}

impl MachineRule {
    fn matches(&self, names: &MachineNames<'_>) -> Vec<Bindings> {
        let among = |pattern: &Option<Pattern>, texts: &[String]| -> Vec<Bindings> {
            let texts = texts.iter();
            let found = pattern
                .iter()
                .flat_map(|p| texts.clone().filter_map(|t| p.matches(t)));
            found.collect()
        };
        let same = |wanted: &Option<String>, is: &str| {
            let wanted = wanted.as_deref();
            wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(is))
        };
        let mut found = among(&self.uri, names.uris);
        found.extend(among(&self.dns, names.dns));
        let common = names.common_name.map(str::to_owned);
        found.extend(among(&self.common_name, common.as_slice()));
        if same(&self.certificate, names.certificate) || same(&self.key, names.key) {
            found.push(Bindings::default());
        }
        found
    }
}

#[cfg(test)]
mod tests;
