//! What is revoked, and what is written down.

use serde::{Deserialize, Serialize};
use weft_ca::audit::{Head, Record};

/// `POST /v1/revoke`: one of the three.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RevokeRequest {
    /// A SPIFFE ID.
    pub spiffe_id: Option<String>,
    /// SHA-256 of a public key, `sha256:<hexadecimal>`.
    pub key: Option<String>,
    /// Serial number of a certificate, hexadecimal.
    pub serial: Option<String>,
    /// Why, for the audit log.
    pub reason: Option<String>,
}

/// Reply to a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// What.
    pub target: String,
    /// Edition of the list that brings it.
    pub edition: u64,
    /// The store's revision that pushes it.
    pub revision: u64,
    /// When, Unix milliseconds.
    pub at_unix_ms: u64,
    /// Serials of live certificates that are dead by it.
    pub serials: Vec<String>,
    /// Unused join tokens that are useless now.
    pub tokens: usize,
}

/// `POST /v1/readmit`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadmitRequest {
    /// The SPIFFE ID.
    pub spiffe_id: String,
}

/// A sidecar enforces a revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProofReceipt {
    /// `service/instance`
    pub sidecar: String,
    /// From when it refuses handshakes, Unix milliseconds by its clock.
    pub refused_from_unix_ms: u64,
    /// Connections that it has cut for it.
    pub cut: u64,
    /// From the revocation to the receipt's arrival, milliseconds.
    pub after_ms: u64,
}

/// Reply of `GET /v1/proof`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Edition of the list.
    pub edition: u64,
    /// Who enforces it.
    pub receipts: Vec<ProofReceipt>,
    /// Sidecars that the list ends, cut off already: `service/instance`. No receipt is asked of them.
    #[serde(default)]
    pub ended: Vec<String>,
    /// Sidecars that have not said so, or are just gone: `service/instance`.
    pub absent: Vec<String>,
    /// Identities that have a certificate and are not connected.
    pub asleep: Vec<String>,
}

/// Reply of `GET /v1/audit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// In their order.
    pub records: Vec<Record>,
    /// Ask again with `after` this, for more.
    pub next: Option<u64>,
    /// Where the log ends.
    pub head: Head,
}
