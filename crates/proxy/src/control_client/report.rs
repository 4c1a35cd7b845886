//! What a sidecar tells its control node each second.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weft_certs::SpiffeId;
use weft_telemetry::EdgeDelta;
use weft_transport::{Connection, ConnectionStats, Direction, Endpoint, Relay};
use weft_wire::{
    ConnectionReport, EarlierProcess, EdgeReport, MAX_CONNECTIONS, MAX_UNREACHABLE, Report,
    TrustReport, UnreachableReport,
};

use super::control_id;
use crate::node::Node;

/// Edges in one report: the rest comes with the next one.
const MAX_EDGES: usize = 512;
/// A peer that could not be dialled is told for so long.
const UNREACHABLE: Duration = Duration::from_secs(300);
/// Characters of why.
const MAX_DETAIL: usize = 300;
/// Changes of edges kept while there is no link. Beyond it the oldest are lost.
const MAX_WAITING: usize = 8_192;

/// Makes reports. Traffic that was not told, because a link broke, is told by the next one.
#[derive(Debug, Default)]
pub(super) struct Reporter {
    waiting: Vec<EdgeReport>,
    told: usize,
    trust: TrustReport,
}

impl Reporter {
    /// What there is to tell now. It counts as told only after [`Reporter::sent`].
    pub(super) fn make(
        &mut self,
        node: &Node,
        endpoint: &Endpoint,
        control: &Connection,
    ) -> Report {
        let news = node.telemetry.take_edges().into_iter().map(edge);
        self.waiting.extend(news);
        let excess = self.waiting.len().saturating_sub(MAX_WAITING);
        drop(self.waiting.drain(..excess));
        self.told = self.waiting.len().min(MAX_EDGES);
        self.look_at_trust(node, endpoint);
        let svid = &node.identity.current().svid;
        let end = svid.not_after().duration_since(UNIX_EPOCH);
        Report {
            serial: svid.serial().to_owned(),
            issuer: svid.issuer_serial().unwrap_or_default(),
            not_after_unix: end.map_or(0, |end| end.as_secs()),
            connections: connections(endpoint, &control_id(node.id.trust_domain())),
            control_rtt_us: micros(control.rtt()),
            control_transport: control.carrier().label().to_owned(),
            edges: self.waiting[..self.told].to_vec(),
            refusals: endpoint
                .refusals()
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            trust: Some(self.trust.clone()),
            unsaved: None,
            earlier: earlier(node),
            unreachable: unreachable(endpoint, node.env.wall()),
        }
    }

    /// Takes note of whom this sidecar trusts, once its connections have been held against it. Until then the
    /// last note stands.
    fn look_at_trust(&mut self, node: &Node, endpoint: &Endpoint) {
        let enforced = *endpoint.enforced().borrow();
        let identity = node.identity.current();
        self.trust.cut = enforced.cut;
        if enforced.bundle_generation != identity.bundle_generation {
            return;
        }
        let domain = node.id.trust_domain();
        let sequence = identity.bundles.get(domain).map_or(0, |b| b.sequence);
        let revoked = identity.bundles.revoked(domain).map_or(0, |l| l.edition);
        if (self.trust.sequence, self.trust.revoked) != (sequence, revoked)
            || self.trust.in_force_unix_ms == 0
        {
            let now = node
                .env
                .wall()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default();
            self.trust.sequence = sequence;
            self.trust.revoked = revoked;
            self.trust.in_force_unix_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        }
    }

    /// The last report is on its way.
    pub(super) fn sent(&mut self) {
        drop(self.waiting.drain(..self.told));
        self.told = 0;
    }
}

fn edge(delta: EdgeDelta) -> EdgeReport {
    EdgeReport {
        reporter: delta.reporter.to_owned(),
        source: delta.source,
        destination: delta.destination,
        protocol: delta.protocol.to_owned(),
        requests: delta.requests,
        failures: delta.failures,
        latency_us: delta.latency_us,
    }
}

/// Those to and from other sidecars.
/// The processes before this one that still finish their streams.
fn earlier(node: &Node) -> Vec<EarlierProcess> {
    let earlier = node.relay.as_ref().map(Relay::earlier);
    let process = |(pid, version)| EarlierProcess { pid, version };
    earlier
        .unwrap_or_default()
        .into_iter()
        .map(process)
        .collect()
}

fn connections(endpoint: &Endpoint, control: &SpiffeId) -> Vec<ConnectionReport> {
    endpoint
        .connections()
        .iter()
        .filter(|stats| stats.peer.as_ref().is_none_or(|peer| peer.id != *control))
        .take(MAX_CONNECTIONS)
        .map(connection)
        .collect()
}

/// Whom this sidecar could not dial, the last word on each address.
fn unreachable(endpoint: &Endpoint, now: SystemTime) -> Vec<UnreachableReport> {
    let fresh = endpoint.recent_refusals().into_iter().filter(|refusal| {
        refusal.direction == Direction::Outbound
            && now
                .duration_since(refusal.at)
                .is_ok_and(|age| age < UNREACHABLE)
    });
    let last: BTreeMap<_, _> = fresh.map(|refusal| (refusal.addr, refusal)).collect();
    // One that was dialled since is no longer out of reach.
    let connected = endpoint.connections();
    let is_connected = |addr| {
        let mut dialled = connected.iter();
        dialled.any(|stats| stats.direction == Direction::Outbound && stats.addr == addr)
    };
    last.into_values()
        .filter(|refusal| !is_connected(refusal.addr))
        .take(MAX_UNREACHABLE)
        .map(|refusal| UnreachableReport {
            addr: refusal.addr.to_string(),
            reason: refusal.reason.to_owned(),
            detail: refusal.detail.chars().take(MAX_DETAIL).collect(),
            at_unix_ms: refusal.at.duration_since(UNIX_EPOCH).map_or(0, millis),
        })
        .collect()
}

fn connection(stats: &ConnectionStats) -> ConnectionReport {
    ConnectionReport {
        direction: stats.direction.to_string(),
        peer: stats
            .peer
            .as_ref()
            .map_or_else(String::new, |peer| peer.id.to_string()),
        addr: stats.addr.to_string(),
        alpn: stats.alpn.clone(),
        rtt_us: micros(stats.rtt),
        streams: stats.requests_carried,
        lost_packets: stats.lost_packets,
        transport: stats.carrier.label().to_owned(),
        age_s: stats.age.as_secs(),
        retired: stats
            .retired
            .map_or_else(String::new, |reason| reason.label().to_owned()),
        min_rtt_us: micros(stats.min_rtt),
        recent_loss_ppm: stats.recent_loss.map(ppm),
        silent_ms: millis(stats.silent),
        sent_packets: stats.sent_packets,
        mtu: stats.mtu,
        window: stats.congestion_window,
        sent_bytes: stats.bytes_sent,
        received_bytes: stats.bytes_received,
        blocked_us: micros(stats.blocked),
        blocked_streams: stats.blocked_streams as u64,
        out_of_credit: stats.out_of_credit,
        migrations: stats.migrations,
        black_holes: stats.black_holes,
        congestion_events: stats.congestion_events,
        random_losses: stats.random_losses,
        profile: stats.profile.to_owned(),
        measured: stats.measured.map_or_else(String::new, |m| m.to_string()),
        congestion: stats.congestion.map_or_else(String::new, |c| c.to_string()),
        copying: stats.copying,
        key_exchange: stats.negotiated.key_exchange.to_owned(),
        cipher: stats.negotiated.cipher.to_owned(),
        resumed: stats.negotiated.resumed,
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "0 to 1"
)]
fn ppm(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 1e6).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_list_of_connections_stays_far_below_the_limit_of_a_frame() {
        let wordy = "x".repeat(128);
        let connection = ConnectionReport {
            direction: "outbound".to_owned(),
            peer: wordy.clone(),
            addr: "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".to_owned(),
            alpn: "h3".to_owned(),
            rtt_us: u64::MAX,
            recent_loss_ppm: Some(u32::MAX),
            blocked_us: u64::MAX,
            cipher: "TLS_CHACHA20_POLY1305_SHA256".to_owned(),
            key_exchange: "X25519MLKEM768".to_owned(),
            ..ConnectionReport::default()
        };
        let unreachable = UnreachableReport {
            detail: "é".repeat(MAX_DETAIL),
            ..UnreachableReport::default()
        };
        let report = Report {
            connections: vec![connection; MAX_CONNECTIONS],
            unreachable: vec![unreachable; MAX_UNREACHABLE],
            ..Report::default()
        };
        let message = weft_wire::SidecarMessage::Report(Box::new(report));
        let frame = weft_wire::encode(&message).unwrap();
        assert!(frame.len() < 512 * 1024, "{} bytes", frame.len());
        assert!(frame.len() < weft_wire::MAX_FRAME / 32);
    }

    #[test]
    fn shares_are_told_in_parts_of_a_million() {
        assert_eq!([ppm(0.0), ppm(0.012_345), ppm(1.5)], [0, 12_345, 1_000_000]);
    }
}
