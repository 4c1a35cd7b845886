//! Why a certificate is good, or which rule it breaks: in words, for people.
//!
//! [`explain`] asks [`verify_chain`] itself, so that what is said here is what a peer would decide.

use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use serde::Serialize;

use crate::{BundleSet, Site, TrustDomain, Usage, VerifyError, der, verify_chain};

/// The rules, in the order in which they are checked.
const RULES: [&str; 7] = [
    "it is one X.509 certificate in DER, with its issuers behind it",
    "it is an X509-SVID: one SPIFFE ID with a path, not a CA, for signatures, as server and client (X509-SVID §2 to §4)",
    "the bundle knows its trust domain (X509-SVID §5)",
    "it is within its time (RFC 5280 §4.1.2.5)",
    "its issuers may issue, and are within their time (RFC 5280 §6)",
    "a root of its trust domain vouches for it (RFC 5280 §6)",
    "it is not revoked",
];

/// One rule, and how the certificate fares.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule.
    pub rule: &'static str,
    /// `true`: it holds; `false`: it does not; `None`: it was not come to, because an earlier one does not hold.
    pub holds: Option<bool>,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Holds a chain (leaf first) against every rule.
#[must_use]
pub fn explain(chain: &[CertificateDer<'_>], bundles: &BundleSet, now: SystemTime) -> Vec<Finding> {
    let verdict = verify_chain(chain, bundles, now, Usage::Server)
        .and_then(|_| verify_chain(chain, bundles, now, Usage::Client));
    let broken = verdict.err().map(|error| (rule_of(&error), error));
    RULES
        .iter()
        .enumerate()
        .map(|(index, rule)| {
            let (holds, reason) = match &broken {
                Some((at, error)) if index == *at => (Some(false), Some(error.to_string())),
                Some((at, _)) if index > *at => (None, None),
                _ => (Some(true), None),
            };
            Finding {
                rule,
                holds,
                reason,
            }
        })
        .collect()
}

fn rule_of(error: &VerifyError) -> usize {
    match error {
        VerifyError::NoCertificate | VerifyError::BadCertificate { .. } => 0,
        VerifyError::NotAnSvid { .. } => 1,
        VerifyError::UnknownTrustDomain { .. } => 2,
        VerifyError::Expired { what, .. } | VerifyError::NotYetValid { what, .. } => match *what {
            "certificate" => 3,
            _ => 4,
        },
        VerifyError::BadChain { .. } => 4,
        VerifyError::UnknownAuthority { .. }
        | VerifyError::WrongPin { .. }
        | VerifyError::OtherRole { .. }
        | VerifyError::WrongIdentity { .. }
        | VerifyError::BadSignature => 5,
        VerifyError::Revoked { .. } => 6,
    }
}

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Description {
    /// `leaf` or `authority`.
    pub role: &'static str,
    /// Its URI names.
    pub names: Vec<String>,
    /// Its subject.
    pub subject: String,
    /// Who issued it.
    pub issuer: String,
    /// Serial number, hexadecimal.
    pub serial: String,
    /// SHA-256 of its public key: what a pin or a revocation names.
    pub key: String,
    /// Begin of its validity.
    pub not_before: String,
    /// End of its validity.
    pub not_after: String,
    /// Seconds left at the time of the look; below zero: expired.
    pub seconds_left: i64,
    /// Of a delegate: its site.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// Of a delegate: for whom it may vouch.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    /// Of a leaf: the rule of X509-SVID that it breaks, if it breaks one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

/// Describes a certificate, whether or not anyone would trust it.
///
/// # Errors
/// [`VerifyError::BadCertificate`] if it is none.
pub fn describe(
    certificate: &CertificateDer<'_>,
    now: SystemTime,
) -> Result<Description, VerifyError> {
    use x509_parser::extensions::GeneralName;
    let parsed = der::parse(certificate)?;
    let authority = der::check_issuer(&parsed).is_ok();
    let names = parsed
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|names| &names.value.general_names);
    let names = names.into_iter().flatten().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(crate::error::shown(uri)),
        _ => None,
    });
    let names: Vec<String> = names.collect();
    let domain = names.first().and_then(|id| TrustDomain::parse(id).ok());
    let site = domain.and_then(|domain| Site::of(&parsed, &domain).ok().flatten());
    let end = der::system_time(parsed.validity().not_after.timestamp());
    let signed = |time| i64::try_from(der::seconds(time)).unwrap_or(i64::MAX);
    let begin = der::system_time(parsed.validity().not_before.timestamp());
    Ok(Description {
        role: if authority { "authority" } else { "leaf" },
        names,
        subject: crate::error::shown(&parsed.subject().to_string()),
        issuer: crate::error::shown(&parsed.issuer().to_string()),
        serial: der::serial_of(certificate)?,
        key: crate::RootPin::of(certificate)?.to_string(),
        not_before: der::rfc3339(begin),
        not_after: der::rfc3339(end),
        seconds_left: signed(end) - signed(now),
        site: site.as_ref().map(|site| site.name().to_owned()),
        permitted: site.map(|site| site.permitted()).unwrap_or_default(),
        fault: match authority {
            true => None,
            false => der::leaf(certificate).err().map(|error| error.to_string()),
        },
    })
}

/// Certificates out of a file: PEM, or one in DER.
///
/// # Errors
/// [`crate::Error::Pem`] if there is none, or more than 10.
pub fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, crate::Error> {
    let fail = |reason: &str| crate::Error::Pem {
        reason: reason.to_owned(),
    };
    let found = certificate_list(bytes)?;
    match found.len() > 10 {
        true => Err(fail("it has more than 10 certificates")),
        false => Ok(found),
    }
}

/// As [`certificates`], of any number: a file of roots.
///
/// # Errors
/// [`crate::Error::Pem`] if there is none, or more than 1,000.
pub fn certificate_list(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, crate::Error> {
    use rustls::pki_types::pem::PemObject;
    let fail = |reason: &str| crate::Error::Pem {
        reason: reason.to_owned(),
    };
    // A certificate in DER is a SEQUENCE.
    if bytes.first() == Some(&0x30) {
        return Ok(vec![CertificateDer::from(bytes.to_vec())]);
    }
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(bytes) {
        found.push(certificate.map_err(|e| fail(&e.to_string()))?);
        if found.len() > 1000 {
            return Err(fail("it has more than 1000 certificates"));
        }
    }
    match found.is_empty() {
        true => Err(fail("it has no CERTIFICATE block")),
        false => Ok(found),
    }
}

/// A certificate as PEM.
#[must_use]
pub fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let mut text = String::new();
    crate::pem::push_block(&mut text, "CERTIFICATE", certificate.as_ref());
    text
}

#[cfg(test)]
#[path = "explain_tests.rs"]
mod tests;
