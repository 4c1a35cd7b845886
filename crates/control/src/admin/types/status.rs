//! The control node, its sidecars and their receipts.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use weft_wire::{ConnectionReport, EarlierProcess, UnreachableReport};

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
    /// Where sidecars reach it (UDP, and TCP where no UDP passes).
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
    /// Its connection broke a moment ago: it stays in the mesh for the time of grace, as it may go on serving.
    Away,
    /// Not connected and out of the mesh; it is shown for a day.
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
    /// Address of the SPIFFE provider that its identity comes from; absent: from this mesh's CA.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity_from: Option<String>,
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
    /// Peers that it could not dial in the last minutes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreachable: Vec<UnreachableReport>,
    /// Round-trip time between it and this node, microseconds; 0 until it has reported.
    pub rtt_us: u64,
    /// What carries its connection to this node: `quic`, or `tcp` where no UDP passes; empty until it has reported.
    #[serde(default)]
    pub transport: String,
    /// Peers that it refused or could not dial since its start, by reason.
    pub refusals: BTreeMap<String, u64>,
    /// Why what is in force there is not on its disk: after a restart it would begin with what was saved before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unsaved: Option<String>,
    /// Processes before this one that still finish their streams, after an upgrade.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierProcess>,
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
