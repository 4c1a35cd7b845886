//! Metrics of the paths to peers: is it the network?

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::Direction;

/// Peers told apart; the rest goes by `other`.
const MAX_PEERS: usize = 256;

/// One connection to a peer at one moment. Totals count from its opening.
#[derive(Debug, Clone)]
pub struct PathSample<'a> {
    /// Tells it from the others of this process, for as long as it lives.
    pub id: u64,
    /// Who dialled.
    pub direction: Direction,
    /// SPIFFE ID of the peer.
    pub peer: &'a str,
    /// What carries it: `quic` or `tcp`.
    pub transport: &'static str,
    /// Key exchange of its handshake.
    pub key_exchange: &'static str,
    /// Cipher of its packets.
    pub cipher: &'static str,
    /// Smoothed round-trip time.
    pub rtt: Duration,
    /// Share lost of what was sent in the last ten seconds, if known.
    pub recent_loss: Option<f64>,
    /// Largest UDP payload that the path carries.
    pub mtu: u16,
    /// Bytes that may be under way.
    pub window: u64,
    /// Streams that wait to be allowed to send.
    pub blocked_streams: usize,
    /// Readers of what it sent that stand still.
    pub standing_readers: usize,
    /// Bytes lent to them.
    pub lent: u64,
    /// What only grows.
    pub totals: PathTotals,
}

/// What only grows while a connection lives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathTotals {
    /// Packets sent.
    pub sent_packets: u64,
    /// Packets lost.
    pub lost_packets: u64,
    /// UDP payload sent.
    pub sent_bytes: u64,
    /// UDP payload received.
    pub received_bytes: u64,
    /// Changes of addresses.
    pub migrations: u64,
    /// Time in which a stream waited to be allowed to send.
    pub blocked: Duration,
    /// Times that it was asked to send less ahead of readers that stand still.
    pub pressed: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PeerLabels {
    direction: &'static str,
    peer: Arc<str>,
}

impl EncodeLabelSet for PeerLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("direction", self.direction).encode(encoder.encode_label())?;
        ("peer", &*self.peer).encode(encoder.encode_label())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct SecurityLabels {
    transport: &'static str,
    key_exchange: &'static str,
    cipher: &'static str,
}

impl EncodeLabelSet for SecurityLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        for (label, value) in [
            ("transport", self.transport),
            ("key_exchange", self.key_exchange),
            ("cipher", self.cipher),
        ] {
            (label, value).encode(encoder.encode_label())?;
        }
        Ok(())
    }
}

type Level = Family<PeerLabels, Gauge>;
type Fraction = Family<PeerLabels, Gauge<f64, AtomicU64>>;
type Count = Family<PeerLabels, Counter>;

#[derive(Default)]
pub(crate) struct Paths {
    rtt: Fraction,
    loss: Fraction,
    mtu: Level,
    window: Level,
    blocked_now: Level,
    standing: Level,
    lent: Level,
    security: Family<SecurityLabels, Gauge>,
    sent_packets: Count,
    lost_packets: Count,
    sent_bytes: Count,
    received_bytes: Count,
    migrations: Count,
    pressed: Count,
    blocked: Family<PeerLabels, Counter<f64, AtomicU64>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Totals of each connection when they were last added.
    last: BTreeMap<u64, PathTotals>,
    peers: BTreeSet<Arc<str>>,
}

impl Seen {
    fn peer(&mut self, peer: &str) -> Arc<str> {
        if let Some(known) = self.peers.get(peer) {
            return known.clone();
        }
        if self.peers.len() >= MAX_PEERS {
            return "other".into();
        }
        let new: Arc<str> = peer.into();
        self.peers.insert(new.clone());
        new
    }
}

/// The worst of a peer's connections.
struct Worst {
    rtt: f64,
    loss: Option<f64>,
    mtu: u16,
    window: u64,
    blocked_streams: usize,
    standing_readers: usize,
    lent: u64,
}

impl Paths {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let gauges = [
            (
                "path_mtu",
                "Largest UDP payload to a peer, smallest of its connections",
                &self.mtu,
            ),
            (
                "path_congestion_window",
                "Bytes that may be under way to a peer, smallest of its connections",
                &self.window,
            ),
            (
                "path_lent",
                "Memory lent to readers of what a peer sent that stand still, beside their connections' windows",
                &self.lent,
            ),
        ];
        for (name, help, family) in gauges {
            registry.register_with_unit(name, help, Unit::Bytes, family.clone());
        }
        registry.register_with_unit(
            "path_rtt",
            "Smoothed round-trip time to a peer, longest of its connections",
            Unit::Seconds,
            self.rtt.clone(),
        );
        registry.register_with_unit(
            "path_recent_loss",
            "Share lost of what was sent to a peer in the last ten seconds, worst of its connections",
            Unit::Ratios,
            self.loss.clone(),
        );
        registry.register(
            "path_blocked_streams",
            "Streams to a peer that wait to be allowed to send",
            self.blocked_now.clone(),
        );
        registry.register(
            "path_standing_readers",
            "Readers of what a peer sent that have not come back for more, where there are many",
            self.standing.clone(),
        );
        registry.register(
            "path_connections",
            "Open mesh connections by transport, key exchange and cipher",
            self.security.clone(),
        );
        let counters = [
            (
                "path_packets_sent",
                "Packets sent to a peer",
                &self.sent_packets,
            ),
            (
                "path_packets_lost",
                "Packets to a peer that were lost",
                &self.lost_packets,
            ),
            (
                "path_migrations",
                "Changes of the addresses of a path to a peer",
                &self.migrations,
            ),
            (
                "path_pressed",
                "Times that a peer was asked to send less ahead of readers that stand still",
                &self.pressed,
            ),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        let bytes = [
            ("path_sent", "UDP payload sent to a peer", &self.sent_bytes),
            (
                "path_received",
                "UDP payload received from a peer",
                &self.received_bytes,
            ),
        ];
        for (name, help, family) in bytes {
            registry.register_with_unit(name, help, Unit::Bytes, family.clone());
        }
        registry.register_with_unit(
            "path_blocked",
            "Time in which a stream to a peer waited to be allowed to send",
            Unit::Seconds,
            self.blocked.clone(),
        );
    }

    /// Replaces the gauges, and adds to the counters what is new since the last call.
    pub(crate) fn follow(&self, samples: &[PathSample<'_>]) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let mut worst: BTreeMap<(&'static str, Arc<str>), Worst> = BTreeMap::new();
        let mut last = BTreeMap::new();
        self.security.clear();
        for sample in samples {
            let labels = PeerLabels {
                direction: sample.direction.as_str(),
                peer: seen.peer(sample.peer),
            };
            let before = seen.last.get(&sample.id).copied().unwrap_or_default();
            self.count(&labels, before, sample.totals);
            last.insert(sample.id, sample.totals);
            let entry = worst.entry((labels.direction, labels.peer));
            entry.or_insert_with(Worst::none).join(sample);
            let security = SecurityLabels {
                transport: sample.transport,
                key_exchange: sample.key_exchange,
                cipher: sample.cipher,
            };
            self.security.get_or_create_owned(&security).inc();
        }
        seen.last = last;
        self.show(worst);
    }

    fn count(&self, labels: &PeerLabels, before: PathTotals, now: PathTotals) {
        let add = |family: &Count, before: u64, now: u64| {
            let counter = family.get_or_create_owned(labels);
            counter.inc_by(now.saturating_sub(before));
        };
        add(&self.sent_packets, before.sent_packets, now.sent_packets);
        add(&self.lost_packets, before.lost_packets, now.lost_packets);
        add(&self.sent_bytes, before.sent_bytes, now.sent_bytes);
        add(
            &self.received_bytes,
            before.received_bytes,
            now.received_bytes,
        );
        add(&self.migrations, before.migrations, now.migrations);
        add(&self.pressed, before.pressed, now.pressed);
        let blocked = now.blocked.saturating_sub(before.blocked);
        self.blocked
            .get_or_create_owned(labels)
            .inc_by(blocked.as_secs_f64());
    }

    fn show(&self, worst: BTreeMap<(&'static str, Arc<str>), Worst>) {
        self.rtt.clear();
        self.loss.clear();
        for family in [
            &self.mtu,
            &self.window,
            &self.blocked_now,
            &self.standing,
            &self.lent,
        ] {
            family.clear();
        }
        for ((direction, peer), worst) in worst {
            let labels = PeerLabels { direction, peer };
            self.rtt.get_or_create_owned(&labels).set(worst.rtt);
            if let Some(loss) = worst.loss {
                self.loss.get_or_create_owned(&labels).set(loss);
            }
            let level = |family: &Level, value: u64| {
                family
                    .get_or_create_owned(&labels)
                    .set(crate::metrics::clamp(value));
            };
            level(&self.mtu, u64::from(worst.mtu));
            level(&self.window, worst.window);
            level(&self.blocked_now, worst.blocked_streams as u64);
            level(&self.standing, worst.standing_readers as u64);
            level(&self.lent, worst.lent);
        }
    }
}

impl Worst {
    fn none() -> Self {
        Self {
            rtt: 0.0,
            loss: None,
            mtu: u16::MAX,
            window: u64::MAX,
            blocked_streams: 0,
            standing_readers: 0,
            lent: 0,
        }
    }

    fn join(&mut self, sample: &PathSample<'_>) {
        self.rtt = self.rtt.max(sample.rtt.as_secs_f64());
        self.loss = match (self.loss, sample.recent_loss) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
        self.mtu = self.mtu.min(sample.mtu);
        self.window = self.window.min(sample.window);
        self.blocked_streams += sample.blocked_streams;
        self.standing_readers += sample.standing_readers;
        self.lent += sample.lent;
    }
}
