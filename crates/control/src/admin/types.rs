//! What goes over the local socket, in JSON. The server and [`AdminClient`](crate::AdminClient) share these.
//!
//! Times are Unix time, with the unit in the name. Readers skip fields they do not know.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::registry::{percentile, success_rate};
use serde_json::Value;
use weft_ca::audit::{Head, Record};
use weft_certs::{RootPin, SignedDocument, SignedError};
use weft_wire::ConnectionReport;

/// `POST /v1/tokens`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRequest {
    /// Namespace of the service.
    pub namespace: String,
    /// The service whose identity the bearer gets.
    pub service: String,
    /// How long the token may be used, seconds.
    pub ttl_s: u64,
}

/// A new token. This is the only time that it is shown.
#[derive(Clone, Serialize, Deserialize)]
pub struct TokenCreated {
    /// The token itself: a secret.
    pub token: String,
    /// The identity it is good for.
    pub spiffe_id: String,
    /// End of its use, Unix seconds.
    pub expires_unix: u64,
    /// The root's pin, which the joiner needs too.
    pub pin: String,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenCreated")
            .field("token", &"<redacted>")
            .field("spiffe_id", &self.spiffe_id)
            .field("expires_unix", &self.expires_unix)
            .finish_non_exhaustive()
    }
}

/// Whether a token can still be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// It can.
    Unused,
    /// Its one use is over.
    Used,
    /// Nobody used it in time.
    Expired,
    /// An operator took it back.
    Revoked,
}

/// A token as `GET /v1/tokens` lists it: never the token itself, which is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenInfo {
    /// First digits of its hash: tells tokens apart, good for nothing else.
    pub id: String,
    /// The identity it is good for.
    pub spiffe_id: String,
    /// When it was made, Unix seconds.
    pub created_unix: u64,
    /// End of its use, Unix seconds.
    pub expires_unix: u64,
    /// Whether it can still be used.
    pub state: TokenState,
    /// When it was used, Unix seconds.
    pub used_unix: Option<u64>,
    /// Address that used it.
    pub used_by: Option<String>,
}

/// `POST /v1/apply`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// Resources as JSON.
    pub resources: Vec<Value>,
}

/// What became of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Created,
    /// It was there with other content.
    Updated,
    /// It was there already, the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// One resource of an apply or delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// `kind/namespace/name`
    pub key: String,
    /// What became of it.
    pub action: Action,
}

/// Reply to an apply or delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReply {
    /// Wait for this revision to know that all of it is in force. Where nothing changed: the one that
    /// last wrote any of the resources.
    pub revision: u64,
    /// One for each resource, in the order given.
    pub changes: Vec<ResourceChange>,
}

/// Narrows `GET /v1/resources`. Exact matches; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceFilter {
    /// Kind, such as `HTTPRoute`.
    pub kind: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

/// One stored resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceEntry {
    /// `kind/namespace/name`
    pub key: String,
    /// The revision that last wrote it.
    pub revision: u64,
    /// The resource as the operator wrote it.
    pub resource: Value,
}

/// Reply of `GET /v1/resources`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceList {
    /// The store's revision at which this was true.
    pub revision: u64,
    /// In the order of their keys.
    pub resources: Vec<ResourceEntry>,
}

/// Reply of `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// This control node.
    pub control: ControlStatus,
    /// Every sidecar that is connected, or was a moment ago; by service, then instance.
    pub sidecars: Vec<SidecarStatus>,
}

/// This control node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlStatus {
    /// Version of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// Trust domain of the mesh.
    pub trust_domain: String,
    /// Its own identity.
    pub spiffe_id: String,
    /// Where sidecars reach it (UDP).
    pub mesh_addr: SocketAddr,
    /// The newest revision that is pushed to sidecars.
    pub revision: u64,
    /// Seconds since it started.
    pub uptime_s: u64,
    /// The root's pin.
    pub pin: String,
    /// Life left of its own certificate, seconds.
    pub certificate_seconds_left: i64,
    /// Refused peers since the start, by reason.
    pub refusals: BTreeMap<String, u64>,
}

/// Whether a sidecar is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SidecarState {
    /// Connected.
    Live,
    /// Not connected; its endpoint is kept for the time of grace, and it is shown for a day.
    Gone,
}

/// A config that a sidecar does not use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NackInfo {
    /// Instance of the sidecar.
    pub instance: String,
    /// Its service, `name.namespace`.
    pub service: String,
    /// The refused revision.
    pub revision: u64,
    /// The revision whose config it runs instead.
    pub running: Option<u64>,
    /// The resource at fault, `kind/namespace/name`, where known.
    pub key: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
}

/// One sidecar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SidecarStatus {
    /// Identity, from its certificate.
    pub spiffe_id: String,
    /// `name.namespace`
    pub service: String,
    /// Instance.
    pub instance: String,
    /// Version of its program.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Where other sidecars reach it.
    pub addr: SocketAddr,
    /// Whether it is connected.
    pub state: SidecarState,
    /// Connected since, Unix milliseconds; if gone: since when it is gone.
    pub since_unix_ms: u64,
    /// The newest revision that it acknowledged.
    pub acked_revision: Option<u64>,
    /// From when that is in force, Unix milliseconds by its clock.
    pub in_force_unix_ms: Option<u64>,
    /// Set while it refuses the newest config.
    pub nack: Option<NackInfo>,
    /// Serial of its certificate, hexadecimal.
    pub serial: String,
    /// Serial of the certificate that issued it; empty until it has reported.
    pub issuer: String,
    /// End of its certificate, Unix seconds.
    pub not_after_unix: u64,
    /// Life left of it, seconds; below zero: expired.
    pub certificate_seconds_left: i64,
    /// Its mesh connections.
    pub connections: Vec<ConnectionReport>,
    /// Round-trip time between it and this node, microseconds; 0 until it has reported.
    pub rtt_us: u64,
    /// Peers that it refused or could not dial since its start, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Why what is in force there is not on its disk: after a restart it would begin with what was saved before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
}

/// A sidecar has a revision in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Receipt {
    /// Instance of the sidecar.
    pub instance: String,
    /// Its service, `name.namespace`.
    pub service: String,
    /// The revision of its acknowledgement: the one waited for or a later one.
    pub revision: u64,
    /// From when it is in force, Unix milliseconds by the sidecar's clock.
    pub in_force_unix_ms: u64,
    /// From the update's arrival to the swap, microseconds.
    pub took_us: u64,
    /// From the commit to the receipt's arrival here, milliseconds. `None` if the commit is too long ago.
    pub after_ms: Option<f64>,
    /// Why it is in force there and not on its disk: after a restart it would begin with what was saved before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
}

/// A live sidecar whose receipt is not in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Straggler {
    /// Instance of the sidecar.
    pub instance: String,
    /// Its service, `name.namespace`.
    pub service: String,
    /// The newest revision that it acknowledged.
    pub acked_revision: Option<u64>,
    /// Whether it is connected. One that is not may still carry traffic by what it knows.
    pub connected: bool,
}

/// A sidecar that was lost so long ago that nobody waits for it any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoneSidecar {
    /// Instance of the sidecar.
    pub instance: String,
    /// Its service, `name.namespace`.
    pub service: String,
    /// Since when it is not connected, Unix milliseconds.
    pub since_unix_ms: u64,
}

/// Reply of `GET /v1/wait`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WaitReply {
    /// The revision waited for.
    pub revision: u64,
    /// Those that have it.
    pub receipts: Vec<Receipt>,
    /// Those that refuse it.
    pub nacks: Vec<NackInfo>,
    /// Those that have not answered.
    pub stragglers: Vec<Straggler>,
    /// Those that do not have it, and were lost within the last day without a goodbye: no failure, but good to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<GoneSidecar>,
}

impl WaitReply {
    /// Whether every live sidecar has the revision in force.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.nacks.is_empty() && self.stragglers.is_empty()
    }
}

/// One edge of `GET /v1/edges`: totals since the control node started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// `source` or `destination`: which side saw it.
    pub reporter: String,
    /// Calling service, `name.namespace`.
    pub source: String,
    /// Called service, `name.namespace`.
    pub destination: String,
    /// `http` or `tcp`.
    pub protocol: String,
    /// Requests or connections that ended.
    pub requests: u64,
    /// Of those, failed.
    pub failures: u64,
    /// Share that did not fail, 0 to 1; 1 if there were none.
    pub success_rate: f64,
    /// Median latency, microseconds: upper bound of its bucket.
    pub p50_us: Option<u64>,
    /// 90th percentile.
    pub p90_us: Option<u64>,
    /// 99th percentile.
    pub p99_us: Option<u64>,
    /// The samples behind them: upper bound of a bucket in microseconds, and its count.
    #[serde(default)]
    pub latency_us: Vec<(u64, u64)>,
}

impl Edge {
    /// What was added since an earlier look at the same edge.
    #[must_use]
    pub fn since(&self, before: Option<&Self>) -> Self {
        let Some(before) = before else {
            return self.clone();
        };
        let old: BTreeMap<u64, u64> = before.latency_us.iter().copied().collect();
        let buckets: BTreeMap<u64, u64> = self
            .latency_us
            .iter()
            .map(|(bound, count)| {
                let was = old.get(bound).copied().unwrap_or_default();
                (*bound, count.saturating_sub(was))
            })
            .collect();
        let failures = self.failures.saturating_sub(before.failures);
        let requests = self.requests.saturating_sub(before.requests);
        Self {
            requests,
            failures,
            success_rate: success_rate(requests, failures),
            p50_us: percentile(&buckets, 50),
            p90_us: percentile(&buckets, 90),
            p99_us: percentile(&buckets, 99),
            latency_us: buckets.into_iter().collect(),
            ..self.clone()
        }
    }
}

/// Reply of `GET /v1/edges`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EdgeList {
    /// By source, destination, protocol and reporter.
    pub edges: Vec<Edge>,
}

/// Reply of `GET /v1/ca`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaInfo {
    /// Trust domain that it speaks for.
    pub trust_domain: String,
    /// The root's pin.
    pub pin: String,
    /// Edition of the trust bundle.
    pub sequence: u64,
    /// Life of leaf certificates, seconds.
    pub leaf_ttl_s: u64,
    /// Roots and issuing certificates, in this order, oldest first.
    pub authorities: Vec<AuthorityInfo>,
    /// Keys for tokens (JWT-SVIDs), oldest first; none until the first token is wanted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_keys: Vec<TokenKeyInfo>,
}

/// A key for tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TokenKeyInfo {
    /// Its name, such as `jwt-1`.
    pub name: String,
    /// `prepared`, `active`, `old` or `removed`.
    pub state: String,
    /// What tokens call it.
    pub kid: String,
    /// Since when it is in that state, Unix seconds.
    pub since_unix: u64,
}

/// A certificate of the authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityInfo {
    /// Its name, such as `issuing-2`.
    #[serde(default)]
    pub name: String,
    /// The root above it; of an issuing CA only.
    #[serde(default)]
    pub issuer: Option<String>,
    /// Whether its key may be in other hands.
    #[serde(default)]
    pub tainted: bool,
    /// Whether its key is on this machine; that of an offline root is not.
    #[serde(default)]
    pub key_here: bool,
    /// SHA-256 of its public key.
    #[serde(default)]
    pub pin: String,
    /// `root` or `issuing`.
    pub role: String,
    /// `prepared`, `active`, `old` or `removed`.
    pub state: String,
    /// Serial, hexadecimal.
    pub serial: String,
    /// Begin of validity, Unix seconds.
    pub not_before_unix: u64,
    /// End of validity, Unix seconds.
    pub not_after_unix: u64,
    /// Life left, seconds; below zero: expired.
    pub seconds_left: i64,
}

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

/// Names an authority.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SlotRequest {
    /// Its name, such as `root-1`.
    pub slot: String,
    /// Do it even if connected sidecars are cut off by it; they are named.
    pub allow_missing: bool,
}

/// `POST /v1/ca/activate`
pub type ActivateRequest = SlotRequest;

/// What was done to authorities, and at whose cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotReply {
    /// The authorities.
    pub slots: Vec<String>,
    /// Sidecars that were left behind: `service/instance`.
    pub left_behind: Vec<String>,
}

/// Reply of `POST /v1/ca/csr`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsrReply {
    /// PKCS#10 request, DER in standard base64.
    pub csr: String,
}

/// `POST /v1/ca/import`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportRequest {
    /// The issuing certificate, its issuers and the root, in any order: DER in standard base64.
    pub certificates: Vec<String>,
}

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
    /// Sidecars that have not said so, or are just gone: `service/instance`.
    pub absent: Vec<String>,
    /// Identities that have a certificate and are not connected.
    pub asleep: Vec<String>,
}

/// `POST /v1/ca/backup`
#[derive(Serialize, Deserialize)]
pub struct BackupRequest {
    /// The passphrase, or the content of a key file: base64.
    pub secret: String,
}

impl std::fmt::Debug for BackupRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BackupRequest(redacted)")
    }
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
    /// Number of the evidence that was signed.
    #[serde(default)]
    pub evidence: Option<u64>,
    /// While it waits: until when, Unix seconds.
    #[serde(default)]
    pub until_unix: Option<u64>,
}
