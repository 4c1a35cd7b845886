//! What is looked at each second: gauges follow what they show, and the balancer hears of paths in trouble.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use weft_telemetry::{Direction, PathSample, PathTotals, Side, Telemetry};
use weft_transport::{Carrier, ConnectionStats, Direction as Dialler, Endpoint, Measured};

use crate::node::Node;

/// How often.
const VITALS: Duration = Duration::from_secs(1);
/// Others are preferred to an instance behind a path in trouble for so long: until the next look, and a little more.
const TROUBLED: Duration = Duration::from_millis(1_500);
/// Silence that is none on a path which is alive: keep-alives bring an answer more often.
const SILENCE: Duration = Duration::from_secs(1);
/// Round trips up to which that is so.
const PROMPT: Duration = Duration::from_millis(250);

/// Keeps the gauges true.
pub(crate) async fn keep(node: Arc<Node>, endpoint: Endpoint) {
    let mut tick = interval(VITALS);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let connections = endpoint.connections();
        paths(&node, &connections);
        tell_fallbacks(&node.telemetry, &endpoint);
        warn_balancer(&node, &connections);
        let telemetry = &node.telemetry;
        for ((direction, reason), total) in endpoint.refusals_by_direction() {
            let side = match direction {
                Dialler::Inbound => Side::Inbound,
                Dialler::Outbound => Side::Outbound,
            };
            telemetry.refusals_total(side, reason, total);
        }
        for ((direction, kind), total) in endpoint.handshakes() {
            let direction = match direction {
                Dialler::Inbound => Direction::Accepted,
                Dialler::Outbound => Direction::Dialled,
            };
            telemetry.handshakes_total(direction, kind, total);
        }
        let end = node.identity.current().svid.not_after();
        let left = end.duration_since(node.env.wall()).unwrap_or_default();
        telemetry.set_svid_left(left);
    }
}

fn paths(node: &Node, connections: &[ConnectionStats]) {
    let telemetry = &node.telemetry;
    for carrier in [Carrier::Quic, Carrier::Tcp] {
        let count = |direction| {
            let of_kind = |c: &&ConnectionStats| c.direction == direction && c.carrier == carrier;
            connections.iter().filter(of_kind).count()
        };
        let (dialled, accepted) = (count(Dialler::Outbound), count(Dialler::Inbound));
        telemetry.set_connections(Direction::Dialled, carrier.label(), dialled);
        telemetry.set_connections(Direction::Accepted, carrier.label(), accepted);
    }
    let samples: Vec<PathSample<'_>> = connections.iter().map(sample).collect();
    telemetry.set_paths(&samples);
}

/// Who had to be reached over TCP, and who is again over QUIC.
fn tell_fallbacks(telemetry: &Telemetry, endpoint: &Endpoint) {
    let fallback = endpoint.fallback();
    telemetry.set_fallback_paths(fallback.blocked);
    telemetry.fallbacks_total("to_tcp", fallback.to_tcp);
    telemetry.fallbacks_total("to_quic", fallback.to_quic);
    telemetry.fallbacks_total("probe_failed", fallback.probes_failed);
}

fn sample(stats: &ConnectionStats) -> PathSample<'_> {
    PathSample {
        id: stats.id,
        direction: match stats.direction {
            Dialler::Inbound => Direction::Accepted,
            Dialler::Outbound => Direction::Dialled,
        },
        peer: stats
            .peer
            .as_ref()
            .map_or("unknown", |peer| peer.id.as_str()),
        transport: stats.carrier.label(),
        key_exchange: stats.negotiated.key_exchange,
        cipher: stats.negotiated.cipher,
        rtt: stats.rtt,
        recent_loss: stats.recent_loss,
        mtu: stats.mtu,
        window: stats.congestion_window,
        blocked_streams: stats.blocked_streams,
        standing_readers: stats.standing_readers,
        lent: stats.lent,
        totals: PathTotals {
            sent_packets: stats.sent_packets,
            lost_packets: stats.lost_packets,
            sent_bytes: stats.bytes_sent,
            received_bytes: stats.bytes_received,
            migrations: stats.migrations,
            blocked: stats.blocked,
            pressed: stats.pressed,
        },
    }
}

/// Requests go to other instances first while the path to one is in trouble: sooner than its connection is lost, and
/// before requests have shown it by failing.
fn warn_balancer(node: &Node, connections: &[ConnectionStats]) {
    let troubled: BTreeSet<SocketAddr> = connections
        .iter()
        .filter(|stats| stats.direction == Dialler::Outbound && is_troubled(stats))
        .map(|stats| stats.addr)
        .collect();
    if troubled.is_empty() {
        return;
    }
    if let Some(running) = &*node.running.load() {
        running.avoid(&troubled, node.uptime() + TROUBLED);
    }
}

fn is_troubled(stats: &ConnectionStats) -> bool {
    let dead = stats.silent >= SILENCE && stats.rtt < PROMPT;
    dead || stats.measured == Some(Measured::Broken)
}
