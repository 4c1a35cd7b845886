//! The messages. JSON, tagged by `type`; unknown types read as `Unknown`, unknown fields are skipped.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Version of the protocol that this crate speaks. Raised only by a change that an older peer
/// cannot tolerate.
pub const PROTOCOL: u32 = 1;

/// What travels from a sidecar to the control node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SidecarMessage {
    /// Always first, once.
    Hello(Hello),
    /// A revision is in force.
    Ack(Ack),
    /// A revision's config cannot be used; the config before it stays in force.
    Nack(Nack),
    /// Health and traffic since the last report.
    Report(Box<Report>),
    /// The sidecar is leaving: remove its endpoint now.
    Goodbye,
    /// A type of a later version: skipped.
    #[serde(other)]
    Unknown,
}

/// What travels from the control node to a sidecar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum ControlMessage {
    /// The next revision.
    Update(Update),
    /// Ask for a new SVID within a window.
    Renew(Renew),
    /// A type of a later version: skipped.
    #[serde(other)]
    Unknown,
}

/// Who a sidecar is beyond what its certificate says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`PROTOCOL`] of the sender.
    pub protocol: u32,
    /// Version of the sender's program.
    pub version: String,
    /// Instance, chosen at random once and kept in the state directory.
    pub instance: String,
    /// Address at which other sidecars reach it. An unspecified IP (`0.0.0.0`, `::`) means: the
    /// address that the control node sees, with this port.
    pub mesh_addr: SocketAddr,
    /// What its application serves.
    pub ports: Vec<PortRecord>,
    /// The revision that it runs already, from its saved snapshot.
    #[serde(default)]
    pub revision: Option<u64>,
    /// Serial of the SVID that it serves, in hexadecimal.
    pub serial: String,
    /// Process id, for the operator's eyes.
    #[serde(default)]
    pub pid: u32,
    /// Address of the SPIFFE Workload API that its identity comes from. `None`: it has it from the mesh's own CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_from: Option<String>,
}

/// One port of a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PortRecord {
    /// The port that callers name. Not the one that the application listens on.
    pub port: u16,
    /// How it is carried.
    pub protocol: Protocol,
}

/// How a port's traffic is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Request by request, as HTTP/3.
    Http,
    /// Byte streams, as CONNECT.
    Tcp,
}

/// A live instance of a service, as stored and pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Identity that the peer must present.
    pub spiffe_id: String,
    /// Where its sidecar listens (UDP, QUIC).
    pub mesh_addr: SocketAddr,
    /// What it serves.
    pub ports: Vec<PortRecord>,
}

/// A service that has or had instances, as stored and pushed: with it a name that is down is told from one that means
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// What its instances serve, or served last.
    pub ports: Vec<PortRecord>,
    /// Since when it has no instance, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_unix: Option<u64>,
}

/// A receipt: from `in_force_unix_ms` on, each new request of this sidecar follows `revision`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// The revision in force.
    pub revision: u64,
    /// Wall clock of the sidecar, milliseconds since the Unix epoch.
    pub in_force_unix_ms: u64,
    /// From the update's last byte to the swap, microseconds.
    pub took_us: u64,
    /// Why it is not on the sidecar's disk, in one sentence: a restart would go back to what was saved before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
}

/// A refusal: the config of `revision` is not used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// The refused revision.
    pub revision: u64,
    /// The revision whose config stays in force, if there is one.
    pub running: Option<u64>,
    /// Key of the resource at fault, `kind/namespace/name`, where one is known.
    pub key: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
}

/// Health of a sidecar, and its traffic since its last report.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Serial of the SVID that it serves, in hexadecimal.
    pub serial: String,
    /// Serial of the certificate that issued it.
    pub issuer: String,
    /// End of that SVID, seconds since the Unix epoch.
    pub not_after_unix: u64,
    /// Its open connections to and from other sidecars.
    pub connections: Vec<ConnectionReport>,
    /// Round-trip time of its connection to this control node, microseconds.
    pub control_rtt_us: u64,
    /// What carries that connection: `quic`, or `tcp` where no UDP passes.
    pub control_transport: String,
    /// Traffic by edge since the last report (a delta: the receiver adds).
    pub edges: Vec<EdgeReport>,
    /// Refused peers and dials since the start, by reason (a total: the receiver replaces).
    pub refusals: BTreeMap<String, u64>,
    /// Whom it trusts now; absent from sidecars before this field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustReport>,
    /// Why what is in force could not be saved, in one sentence: a restart would go back to what was saved before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
    /// Processes before this one that still finish their streams, after an upgrade.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierProcess>,
    /// Peers that could not be dialled in the last minutes, the newest of each address.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<UnreachableReport>,
}

/// A process that has handed its sidecar over to a newer one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EarlierProcess {
    /// Its process id.
    pub pid: u32,
    /// Version of its program.
    pub version: String,
}

/// Connections in one report; the rest is left out.
pub const MAX_CONNECTIONS: usize = 512;
/// Unreachable peers in one report.
pub const MAX_UNREACHABLE: usize = 16;

/// A peer that could not be dialled.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct UnreachableReport {
    /// Its address.
    pub addr: String,
    /// Why in one word, such as `timeout`.
    pub reason: String,
    /// Why in one sentence.
    pub detail: String,
    /// When, Unix milliseconds by the sidecar's clock.
    pub at_unix_ms: u64,
}

/// How far a sidecar has come in trusting, and distrusting, what was pushed: a receipt. New handshakes follow it and
/// no connection is left that it forbids.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TrustReport {
    /// `spiffe_sequence` of the bundle of its own trust domain.
    pub sequence: u64,
    /// Edition of the list of what is revoked; 0: it has none.
    pub revoked: u64,
    /// From when, Unix milliseconds by its clock.
    pub in_force_unix_ms: u64,
    /// Connections cut since its start, because their peer was revoked or no longer trusted (a total).
    pub cut: u64,
}

/// One mesh connection.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConnectionReport {
    /// `outbound` (dialled) or `inbound` (accepted).
    pub direction: String,
    /// SPIFFE ID of the peer.
    pub peer: String,
    /// Address of the peer.
    pub addr: String,
    /// Application protocol that the handshake agreed on.
    pub alpn: String,
    /// Smoothed round-trip time, microseconds.
    pub rtt_us: u64,
    /// Requests and tunnels carried since it was opened.
    pub streams: u64,
    /// Packets lost since it was opened.
    pub lost_packets: u64,
    /// What carries it: `quic`, or `tcp` where UDP is blocked.
    pub transport: String,
    /// Seconds since it was opened.
    pub age_s: u64,
    /// Why it takes no more requests, if so.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub retired: String,
    /// Shortest round-trip time since it was opened, microseconds: what is above it is waiting in queues.
    pub min_rtt_us: u64,
    /// Packets lost in the last ten seconds, of a million; absent if too few were sent to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub recent_loss_ppm: Option<u32>,
    /// How long nothing has arrived, milliseconds; less than two seconds on a path that is alive.
    #[serde(skip_serializing_if = "is_zero")]
    pub silent_ms: u64,
    /// Packets sent since it was opened.
    pub sent_packets: u64,
    /// Largest UDP payload that the path carries, bytes.
    pub mtu: u16,
    /// Bytes that may be under way.
    pub window: u64,
    /// UDP payload sent since it was opened, bytes.
    pub sent_bytes: u64,
    /// The same received.
    pub received_bytes: u64,
    /// Time in which at least one stream waited to be allowed to send, since it was opened, microseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub blocked_us: u64,
    /// Streams that wait now.
    #[serde(skip_serializing_if = "is_zero")]
    pub blocked_streams: u64,
    /// Times that the peer's credit was used up: waiting without that is waiting for the network.
    #[serde(skip_serializing_if = "is_zero")]
    pub out_of_credit: u64,
    /// Changes of the path's addresses.
    #[serde(skip_serializing_if = "is_zero")]
    pub migrations: u64,
    /// Times that the path's MTU shrank under way.
    #[serde(skip_serializing_if = "is_zero")]
    pub black_holes: u64,
    /// Losses after which the sender slowed down.
    #[serde(skip_serializing_if = "is_zero")]
    pub congestion_events: u64,
    /// Losses that it took for chance.
    #[serde(skip_serializing_if = "is_zero")]
    pub random_losses: u64,
    /// Profile in force: `auto`, `dc`, `wan` or `lossy`.
    pub profile: String,
    /// What the path shows: `dc`, `wan`, `lossy`, `full` or `broken`.
    pub measured: String,
    /// Congestion control in force: `discerning`, `cubic` or `bbr`.
    pub congestion: String,
    /// Whether small datagrams are sent twice now.
    #[serde(skip_serializing_if = "is_false")]
    pub copying: bool,
    /// Key exchange of the handshake, such as `X25519MLKEM768`.
    pub key_exchange: String,
    /// Cipher of the packets, such as `TLS_AES_128_GCM_SHA256`.
    pub cipher: String,
    /// Whether the handshake resumed an earlier session.
    #[serde(skip_serializing_if = "is_false")]
    pub resumed: bool,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Traffic on one edge, seen from one side.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct EdgeReport {
    /// `source` (the caller's sidecar) or `destination`.
    pub reporter: String,
    /// Service of the caller, `name.namespace`.
    pub source: String,
    /// Service called, `name.namespace`.
    pub destination: String,
    /// `http` or `tcp`.
    pub protocol: String,
    /// Requests, or TCP connections, that ended.
    pub requests: u64,
    /// Of those, failed: refused by weft, answered with status 500 and above, or reset.
    pub failures: u64,
    /// Latency as (upper bound of the bucket in microseconds, count).
    pub latency_us: Vec<(u64, u64)>,
}

/// The next revision of everything that a sidecar knows, as a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// Revision after this change. Never goes back.
    pub revision: u64,
    /// Whether `set` is everything: forget all other keys. The first update of a stream always is.
    pub whole: bool,
    /// Keys ([`crate::ResourcePath`]) with their new values.
    #[serde(default)]
    pub set: BTreeMap<String, Value>,
    /// Keys that are gone.
    #[serde(default)]
    pub unset: Vec<String>,
}

/// Ask for a new SVID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Why, for the sidecar's log.
    pub reason: String,
    /// Do it at a random moment within this window, milliseconds.
    pub within_ms: u64,
}
