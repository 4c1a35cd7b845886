//! `OutboundListener` of `weft.dev/v1`: a local TCP port that leads to a service.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::ServiceName;
use crate::error::Checker;
use crate::reference::{check_names, check_port};

/// A TCP port on every sidecar of `workload`, whose connections go to `backend`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct OutboundListenerSpec {
    /// Whose sidecars open the port.
    pub workload: Workload,
    /// Where, on a loopback address: who can reach it speaks with the workload's identity.
    pub address: SocketAddr,
    /// Where its connections go.
    pub backend: TcpBackend,
}

/// A service, in the namespace of the resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// Name of the service.
    pub service: String,
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcpBackend {
    /// Name of the service.
    pub name: String,
    /// Its namespace. Without it, the resource's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its port.
    pub port: u16,
}

impl OutboundListenerSpec {
    /// The service whose sidecars open the port, for a resource in `namespace`. `None` only if the
    /// resource is not valid.
    #[must_use]
    pub fn workload_service(&self, namespace: &str) -> Option<ServiceName> {
        ServiceName::new(namespace, &self.workload.service).ok()
    }

    /// The service that connections go to, for a resource in `namespace`. `None` only if the resource is
    /// not valid.
    #[must_use]
    pub fn backend_service(&self, namespace: &str) -> Option<ServiceName> {
        let namespace = self.backend.namespace.as_deref().unwrap_or(namespace);
        ServiceName::new(namespace, &self.backend.name).ok()
    }

    pub(crate) fn check(&self, c: &mut Checker) {
        c.field("workload", |c| {
            c.require("service", crate::check_label(&self.workload.service));
        });
        if !self.address.ip().is_loopback() {
            c.problem_at(
                "address",
                format!(
                    "{} is not a loopback address: who reaches this port speaks with the workload's identity, so it must stay on the machine",
                    self.address.ip()
                ),
            );
        }
        if self.address.port() == 0 {
            c.problem_at(
                "address",
                "port 0 cannot be called: name a port from 1 to 65535",
            );
        }
        c.field("backend", |c| {
            check_names(c, self.backend.namespace.as_deref(), &self.backend.name);
            check_port(c, Some(self.backend.port));
        });
    }
}
