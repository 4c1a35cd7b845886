//! The label vocabulary: Istio's names, so that dashboards made for it read weft too.

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

/// Which end of an edge recorded it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reporter {
    /// The caller's sidecar.
    Source,
    /// The called service's sidecar.
    Destination,
}

impl Reporter {
    /// The label value: `source` or `destination`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// Which half of a sidecar refused or answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// Traffic of the own application into the mesh.
    Outbound,
    /// Traffic of the mesh to the own application.
    Inbound,
}

impl Side {
    /// The word used in labels, logs and `proxy-status`: `outbound` or `inbound`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who opened a mesh connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// This process dialled.
    Dialled,
    /// This process accepted.
    Accepted,
}

impl Direction {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dialled => "outbound",
            Self::Accepted => "inbound",
        }
    }
}

/// How an edge's traffic is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// Request by request.
    Http,
    /// Byte streams.
    Tcp,
}

impl Protocol {
    /// The label value: `http` or `tcp`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// One end of an edge: a service and the identity it has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Party {
    namespace: Arc<str>,
    name: Arc<str>,
    principal: Arc<str>,
}

impl Party {
    /// A service with its SPIFFE ID (with `spiffe://`).
    #[must_use]
    pub fn service(namespace: &str, name: &str, principal: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            principal: principal.into(),
        }
    }

    /// A party of which nothing is known, as Istio writes it: `unknown`.
    #[must_use]
    pub fn unknown() -> Self {
        Self::service("unknown", "unknown", "unknown")
    }

    /// What stands for every edge beyond the bound.
    pub(crate) fn other() -> Self {
        Self::service("other", "other", "other")
    }

    /// `name.namespace`, the way users write a service.
    #[must_use]
    pub fn display_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

/// One service calling another over one protocol, seen from one side.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EdgeKey {
    /// The side that records.
    pub reporter: Reporter,
    /// The caller.
    pub source: Party,
    /// The called service.
    pub destination: Party,
    /// How the traffic is carried.
    pub protocol: Protocol,
}

/// The labels of an edge on every metric of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EdgeLabels(pub(crate) Arc<EdgeKey>);

impl EncodeLabelSet for EdgeLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let EdgeKey {
            reporter,
            source,
            destination,
            protocol,
        } = &*self.0;
        let service = destination.display_name();
        for (label, value) in [
            ("reporter", reporter.as_str()),
            ("source_workload", &source.name),
            ("source_workload_namespace", &source.namespace),
            ("source_principal", &source.principal),
            ("destination_service", &service),
            ("destination_service_name", &destination.name),
            ("destination_service_namespace", &destination.namespace),
            ("destination_principal", &destination.principal),
            ("request_protocol", protocol.as_str()),
            // Both ends of a mesh connection have verified each other, or there is no connection.
            ("connection_security_policy", "mutual_tls"),
        ] {
            (label, value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

/// An edge and one response code.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CodeLabels {
    pub(crate) edge: EdgeLabels,
    pub(crate) code: Arc<str>,
}

impl EncodeLabelSet for CodeLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.edge.encode(encoder)?;
        ("response_code", &*self.code).encode(encoder.encode_label())
    }
}

/// A refusal: which side, and why in one word.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RefusalLabels {
    pub(crate) side: &'static str,
    pub(crate) reason: &'static str,
}

impl EncodeLabelSet for RefusalLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("side", self.side).encode(encoder.encode_label())?;
        ("reason", self.reason).encode(encoder.encode_label())
    }
}

/// A kind of mesh connection.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ConnectionLabels {
    pub(crate) direction: &'static str,
    pub(crate) transport: &'static str,
}

impl EncodeLabelSet for ConnectionLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("direction", self.direction).encode(encoder.encode_label())?;
        ("transport", self.transport).encode(encoder.encode_label())
    }
}

/// A kind of handshake.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct HandshakeLabels {
    pub(crate) direction: &'static str,
    pub(crate) kind: &'static str,
}

impl EncodeLabelSet for HandshakeLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("direction", self.direction).encode(encoder.encode_label())?;
        ("kind", self.kind).encode(encoder.encode_label())
    }
}

/// A kind of event.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct EventLabels(pub(crate) &'static str);

impl EncodeLabelSet for EventLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("event", self.0).encode(encoder.encode_label())
    }
}

/// One authority.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct AuthorityLabels {
    pub(crate) role: String,
    pub(crate) name: String,
}

impl EncodeLabelSet for AuthorityLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("role", self.role.as_str()).encode(encoder.encode_label())?;
        ("name", self.name.as_str()).encode(encoder.encode_label())
    }
}
