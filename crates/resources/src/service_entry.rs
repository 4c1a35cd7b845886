//! `ServiceEntry` of `weft.dev/v1`: a service of another mesh, which this mesh may call.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::error::Checker;
use crate::name::shorten;
use crate::reference::check_port;

/// Most endpoints of one entry.
const MAX_ENDPOINTS: usize = 256;
/// Most ports of one entry.
const MAX_PORTS: usize = 64;
/// Longest name of a trust domain (SPIFFE-ID §2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// A service of a federated mesh. In this mesh it goes by the resource's own name and namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ServiceEntrySpec {
    /// Whom callers must meet there: `spiffe://<its trust domain>/ns/<namespace>/sa/<service>`.
    pub identity: String,
    /// What it serves.
    pub ports: Vec<EntryPort>,
    /// Where its sidecars listen.
    pub endpoints: Vec<EntryEndpoint>,
}

/// A port of a service of another mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryPort {
    /// Its number, as that mesh knows it.
    pub port: u16,
    /// How it is carried.
    #[serde(default)]
    pub protocol: EntryProtocol,
}

/// How a port is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EntryProtocol {
    /// Request by request.
    #[default]
    Http,
    /// As byte streams.
    Tcp,
}

/// A sidecar of a service of another mesh.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EntryEndpoint {
    /// Address and UDP port on which it listens.
    pub address: SocketAddr,
}

impl ServiceEntrySpec {
    pub(crate) fn check(&self, c: &mut Checker) {
        c.require("identity", check_identity(&self.identity));
        if self.ports.is_empty() || self.ports.len() > MAX_PORTS {
            c.problem_at("ports", format!("name 1 to {MAX_PORTS} ports"));
        }
        c.each("ports", &self.ports, |c, port| {
            check_port(c, Some(port.port))
        });
        once(c, "ports", self.ports.iter().map(|port| port.port));
        if self.endpoints.is_empty() || self.endpoints.len() > MAX_ENDPOINTS {
            c.problem_at("endpoints", format!("name 1 to {MAX_ENDPOINTS} endpoints"));
        }
        c.each("endpoints", &self.endpoints, |c, endpoint| {
            let address = endpoint.address;
            if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
                c.problem_at("address", format!("{address} cannot be called"));
            }
        });
        once(
            c,
            "endpoints",
            self.endpoints.iter().map(|endpoint| endpoint.address),
        );
    }
}

fn once<T: Ord + Display>(c: &mut Checker, list: &str, items: impl Iterator<Item = T>) {
    let mut seen = BTreeSet::new();
    for item in items {
        if seen.contains(&item) {
            return c.problem_at(list, format!("{item} stands here more than once"));
        }
        seen.insert(item);
    }
}

/// The form of a service's SPIFFE ID in any weft mesh.
fn check_identity(text: &str) -> Result<(), String> {
    let form = || {
        format!(
            "'{}' is not the identity of a service: expected spiffe://<trust domain>/ns/<namespace>/sa/<service>",
            shorten(text)
        )
    };
    let rest = text.strip_prefix("spiffe://").ok_or_else(form)?;
    let parts: Vec<&str> = rest.splitn(6, '/').collect();
    let [domain, "ns", namespace, "sa", service] = parts[..] else {
        return Err(form());
    };
    let of_domain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
    if domain.is_empty() || domain.len() > MAX_TRUST_DOMAIN || !domain.bytes().all(of_domain) {
        return Err(form());
    }
    for label in [namespace, service] {
        crate::check_label(label).map_err(|error| error.to_string())?;
    }
    Ok(())
}
