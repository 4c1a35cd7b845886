//! What a sidecar tells its control node each second.

use std::time::UNIX_EPOCH;

use weft_certs::SpiffeId;
use weft_telemetry::EdgeDelta;
use weft_transport::{Connection, ConnectionStats, Direction, Endpoint, Relay};
use weft_wire::{ConnectionReport, EarlierProcess, EdgeReport, Report, TrustReport};

use super::control_id;
use crate::node::Node;

/// Edges and connections in one report: the rest of the edges comes with the next one.
const MAX_EDGES: usize = 512;
const MAX_CONNECTIONS: usize = 512;
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
            edges: self.waiting[..self.told].to_vec(),
            refusals: endpoint
                .refusals()
                .into_iter()
                .map(|(reason, count)| (reason.to_owned(), count))
                .collect(),
            trust: Some(self.trust.clone()),
            unsaved: None,
            earlier: earlier(node),
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

fn connection(stats: &ConnectionStats) -> ConnectionReport {
    ConnectionReport {
        direction: match stats.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
        .to_owned(),
        peer: stats
            .peer
            .as_ref()
            .map_or_else(String::new, |peer| peer.id.to_string()),
        addr: stats.addr.to_string(),
        alpn: stats.alpn.clone(),
        rtt_us: micros(stats.rtt),
        streams: stats.requests_carried,
        lost_packets: stats.lost_packets,
    }
}

fn micros(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
