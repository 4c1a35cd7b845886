//! Names of services, as resources and applications write them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Namespace of what names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Namespace of weft's own nodes. No service may join it.
pub const SYSTEM_NAMESPACE: &str = "weft-system";

/// Longest DNS label (RFC 1035 §2.3.4).
const MAX_LABEL: usize = 63;
/// Longest name of a resource (a DNS subdomain, RFC 1123).
const MAX_RESOURCE_NAME: usize = 253;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a DNS label.
    #[error(
        "'{0}' is not a name: lower-case letters, digits and '-' only, not at either end a '-', 1 to 63 characters"
    )]
    Label(String),
    /// Not a dotted series of DNS labels.
    #[error(
        "'{0}' is not the name of a resource: lower-case letters, digits, '-' and '.' only, 1 to 253 characters"
    )]
    Resource(String),
    /// A host that names no service of the mesh.
    #[error(
        "'{0}' does not name a service: expected name, name.namespace, name.namespace.mesh or name.namespace.svc.cluster.local"
    )]
    Host(String),
    /// The port after a host is not a number from 1 to 65535.
    #[error("'{0}' does not end in a port from 1 to 65535")]
    Port(String),
}

/// Checks a DNS label: a namespace, or the name of a service.
///
/// # Errors
/// [`NameError::Label`] if it is not one.
pub fn check_label(text: &str) -> Result<(), NameError> {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    let fits = !bytes.is_empty()
        && bytes.len() <= MAX_LABEL
        && bytes.iter().all(inner)
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-';
    if fits {
        Ok(())
    } else {
        Err(NameError::Label(shorten(text)))
    }
}

/// Checks the name of a resource: labels, joined by dots.
///
/// # Errors
/// [`NameError::Resource`] if it is none.
pub fn check_resource_name(text: &str) -> Result<(), NameError> {
    if text.len() <= MAX_RESOURCE_NAME && text.split('.').all(|label| check_label(label).is_ok()) {
        Ok(())
    } else {
        Err(NameError::Resource(shorten(text)))
    }
}

/// So that an error message stays readable whatever was sent.
pub(crate) fn shorten(text: &str) -> String {
    const SHOWN: usize = 80;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A service of the mesh. Shown as `invoices.default`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ServiceName {
    namespace: Box<str>,
    name: Box<str>,
}

impl ServiceName {
    /// The service `name` of `namespace`.
    ///
    /// # Errors
    /// [`NameError::Label`] if either is not a DNS label.
    pub fn new(namespace: &str, name: &str) -> Result<Self, NameError> {
        check_label(namespace)?;
        check_label(name)?;
        Ok(Self {
            namespace: namespace.into(),
            name: name.into(),
        })
    }

    /// Namespace of the service.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Name within its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The service that a host means to a caller in `caller_namespace`, and its port if it has one.
    ///
    /// Understood, in any letter case: `invoices`, `invoices.default`, and after the latter `.mesh`,
    /// `.svc` or `.svc.cluster.local`; then optionally a dot (a fully qualified name) and `:port`.
    ///
    /// # Errors
    /// [`NameError`] if it is not of that form.
    pub fn parse_host(
        host: &str,
        caller_namespace: &str,
    ) -> Result<(Self, Option<u16>), NameError> {
        let (host_name, port) = match host.rsplit_once(':') {
            None => (host, None),
            Some((before, port)) => (before, Some(parse_port(port, host)?)),
        };
        let lower = host_name.to_ascii_lowercase();
        let bare = lower.strip_suffix('.').unwrap_or(&lower);
        let mut labels = bare.split('.');
        let name = labels.next().unwrap_or_default();
        let namespace = labels.next();
        let mut suffix = [""; 3];
        let mut suffix_len = 0;
        for label in labels {
            *suffix
                .get_mut(suffix_len)
                .ok_or_else(|| NameError::Host(shorten(host)))? = label;
            suffix_len += 1;
        }
        match &suffix[..suffix_len] {
            [] | ["mesh"] | ["svc"] | ["svc", "cluster", "local"] => {}
            _ => return Err(NameError::Host(shorten(host))),
        }
        let service = Self::new(namespace.unwrap_or(caller_namespace), name)
            .map_err(|_| NameError::Host(shorten(host)))?;
        Ok((service, port))
    }
}

/// Digits only: `u16::from_str` would also take `+80`.
fn parse_port(text: &str, host: &str) -> Result<u16, NameError> {
    let wrong = || NameError::Port(shorten(host));
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(wrong()),
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.name, self.namespace)
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Of the form `invoices.default`: what [`fmt::Display`] writes.
impl FromStr for ServiceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let (name, namespace) = text
            .split_once('.')
            .ok_or_else(|| NameError::Host(shorten(text)))?;
        Self::new(namespace, name)
    }
}

impl TryFrom<String> for ServiceName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServiceName> for String {
    fn from(service: ServiceName) -> Self {
        service.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_every_accepted_form_name_the_service() {
        for (host, expected, port) in [
            ("invoices", "invoices.team", None),
            ("invoices:80", "invoices.team", Some(80)),
            ("invoices.default", "invoices.default", None),
            ("invoices.default:8080", "invoices.default", Some(8080)),
            ("Invoices.Default.svc", "invoices.default", None),
            (
                "invoices.default.svc.cluster.local:1",
                "invoices.default",
                Some(1),
            ),
            (
                "invoices.default.svc.cluster.local.",
                "invoices.default",
                None,
            ),
            (
                "invoices.default.mesh:65535",
                "invoices.default",
                Some(65535),
            ),
        ] {
            let (service, got) = ServiceName::parse_host(host, "team").expect(host);
            assert_eq!(
                (service.to_string().as_str(), got),
                (expected, port),
                "{host}"
            );
        }
    }

    #[test]
    fn other_hosts_are_refused() {
        for host in [
            "",
            ".",
            ":80",
            "invoices:",
            "invoices:0",
            "invoices:+80",
            "invoices:65536",
            "invoices:http",
            "a.b.c",
            "example.com.au.x.y",
            "invoices..default",
            "in_voices",
            "-a",
            "a-",
            "[::1]:80",
            "10.0.0.1",
            "a b",
            "invoices.default.svc.cluster",
            "invoices.default.svc.cluster.local.x",
        ] {
            assert!(ServiceName::parse_host(host, "team").is_err(), "{host}");
        }
        assert!(ServiceName::parse_host(&"a".repeat(64), "team").is_err());
    }

    #[test]
    fn a_service_name_is_a_string_in_json() {
        let service = ServiceName::new("default", "invoices").unwrap();
        let json = serde_json::to_string(&service).unwrap();
        assert_eq!(json, "\"invoices.default\"");
        assert_eq!(serde_json::from_str::<ServiceName>(&json).unwrap(), service);
        assert!(serde_json::from_str::<ServiceName>("\"invoices\"").is_err());
    }
}
