//! Rotations: how they are asked for, how they go, and what proves that they are over.

use serde::{Deserialize, Serialize};
use weft_certs::{RootPin, SignedDocument, SignedError};

/// `POST /v1/ca/rotate`
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RotateCa {
    /// Sidecars take their new certificate at a random moment within this window, milliseconds.
    /// `None`: as fast as the authority signs.
    pub within_ms: Option<u64>,
    /// Give up waiting for a sidecar after this time, milliseconds. `None`: 10 minutes.
    pub timeout_ms: Option<u64>,
    /// Replace the root, and the issuing CA with it; else the issuing CA only.
    pub root: bool,
    /// Drop the old one as soon as no connected sidecar needs it; do not wait for the certificates of those that are
    /// not connected.
    pub now: bool,
    /// Go on without sidecars that do not answer in time; they are named.
    pub allow_missing: bool,
}

/// Reply of `POST /v1/ca/plan`: what a rotation would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaPlan {
    /// Step by step, in words.
    pub steps: Vec<String>,
    /// Connected sidecars: `service/instance`.
    pub sidecars: Vec<String>,
    /// Identities that have a certificate and are not connected.
    pub asleep: Vec<String>,
}

/// An authority as evidence names it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// `root` or `issuing`.
    pub role: String,
    /// Serial of its certificate.
    pub serial: String,
    /// SHA-256 of its public key.
    pub pin: String,
}

impl Named {
    pub(crate) fn of(tier: weft_ca::Tier, slot: &weft_ca::Slot) -> Self {
        Self {
            name: slot.id.clone(),
            role: tier.as_str().to_owned(),
            serial: weft_certs::serial_of(&slot.certificate).unwrap_or_default(),
            pin: slot.pin().map(|pin| pin.to_string()).unwrap_or_default(),
        }
    }
}

/// A sidecar, and when something was heard of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// `service/instance`
    pub sidecar: String,
    /// Unix milliseconds by the control node's clock.
    pub at_unix_ms: u64,
}

/// What proves that a rotation is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Number of the rotation.
    pub rotation: u64,
    /// What was replaced: `root` or `issuing`.
    pub role: String,
    /// The mesh.
    pub trust_domain: String,
    /// Begin.
    pub started_unix_ms: u64,
    /// End: the old one is gone.
    pub finished_unix_ms: u64,
    /// What signed before.
    pub old: Vec<Named>,
    /// The new root, if the root was replaced.
    pub new_root: Option<String>,
    /// The new issuing CA.
    pub new_issuing: Option<String>,
    /// Edition of the trust bundle at the end.
    pub bundle_sequence: u64,
    /// Whether the certificates of sidecars that were not connected were waited for.
    pub waited_for_sleepers: bool,
    /// Who acknowledged the new root before it signed anything, and when.
    pub acknowledged: Vec<Seen>,
    /// Who had a certificate under the new issuing CA, and since when.
    pub renewed: Vec<Seen>,
    /// Who was connected and did not follow in time (`--allow-missing`).
    pub missing: Vec<String>,
    /// Identities with certificates that were not connected.
    pub asleep: Vec<String>,
    /// The last time that a connected sidecar was seen with a certificate under the old one.
    pub last_chain_to_old: Option<Seen>,
    /// When the old one was dropped.
    pub dropped_unix_ms: Option<u64>,
    /// The audit log's last record before this.
    pub audit_seq: u64,
    /// Its hash: who keeps evidence can tell whether the log before it was changed.
    pub audit_hash: String,
}

/// Reply of `GET /v1/ca/evidence`: each with the signed document that carries it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceInfo {
    /// What it says.
    pub evidence: Evidence,
    /// The document, to be kept and checked elsewhere.
    pub document: SignedDocument,
}

/// Why evidence proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvidenceError {
    /// It is something else.
    #[error("it is not evidence of a rotation: {0}")]
    Unreadable(String),
    /// It is of another mesh, or from before this root.
    #[error(
        "no certificate in it has the pinned key {pin}: it is of another mesh, or of another root"
    )]
    OtherRoot {
        /// The pin.
        pin: RootPin,
    },
    /// It is not what the control node signed.
    #[error("it proves nothing: {0}")]
    Signature(#[from] SignedError),
}

/// `POST /v1/certs/rotate`. Without services and instances: every sidecar.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RotateCerts {
    /// Only sidecars of these services, `name.namespace`.
    pub services: Vec<String>,
    /// Only these instances.
    pub instances: Vec<String>,
    /// As in [`RotateCa`].
    pub within_ms: Option<u64>,
    /// As in [`RotateCa`].
    pub timeout_ms: Option<u64>,
}

/// A certificate that took the place of another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// Instance of the sidecar.
    pub instance: String,
    /// Its service, `name.namespace`.
    pub service: String,
    /// Serial before.
    pub serial_before: String,
    /// Serial now.
    pub serial_after: String,
}

/// A step of a rotation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Nothing is done yet.
    Started,
    /// Sidecars are told to trust the new root, which signs nothing before they do.
    Distributing,
    /// A new issuing certificate exists and is not used yet.
    Prepared,
    /// It signs now.
    Activated,
    /// Sidecars take new certificates.
    Renewing,
    /// The old issuing key is gone.
    Retired,
    /// The old root stays trusted until the certificates under it have ended; the control node goes on by itself.
    Waiting,
    /// All is done.
    Done,
    /// It ended before all was done; `message` says why.
    Failed,
}

/// One line of a rotation's progress. The last one has `finished`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Where it stands.
    pub phase: Phase,
    /// Sidecars that have their new certificate.
    pub done: usize,
    /// Live sidecars that need one.
    pub total: usize,
    /// Those that have not: `service/instance`.
    pub absent: Vec<String>,
    /// Whether this is the last line.
    pub finished: bool,
    /// On the last line: what failed.
    pub message: Option<String>,
    /// Serial of the issuing certificate before and after, where it changes.
    pub issuer_before: Option<String>,
    /// See `issuer_before`.
    pub issuer_after: Option<String>,
    /// Certificates that changed so far.
    pub rotated: Vec<Rotated>,
    /// Connected sidecars that were left behind: `service/instance`.
    #[serde(default)]
    pub missing: Vec<String>,
    /// Identities that have a certificate and are not connected.
    #[serde(default)]
    pub asleep: Vec<String>,
    /// Sidecars that were connected at its begin and are not any more, without a new certificate: `service/instance`.
    #[serde(default)]
    pub gone: Vec<String>,
    /// Connected sidecars whose identity comes from elsewhere, which alone replaces it: `service/instance` and where from.
    #[serde(default)]
    pub elsewhere: Vec<(String, String)>,
    /// Number of the evidence that was signed.
    #[serde(default)]
    pub evidence: Option<u64>,
    /// While it waits: until when, Unix seconds.
    #[serde(default)]
    pub until_unix: Option<u64>,
    /// Number of an earlier rotation that only waited for its old root: this ends it, and begins nothing new.
    #[serde(default)]
    pub ended: Option<u64>,
}
