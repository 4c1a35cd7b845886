//! Every live connection of an endpoint, and what is known of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_certs::{
    BundleSet, CertificateDer, PeerIdentity, Usage, VerifyError, check_revoked, verify_chain,
};
use weft_h3::{Blocked, Standing};

use crate::lifetime::{EndReason, Terms};
use crate::load::Load;
use crate::paths::{self, Seen, Sightings};
use crate::steer::Wheel;
use crate::wire::Wire;
use crate::{
    Carrier, Congestion, ConnectionStats, Copying, Direction, Negotiated, Profile, session,
};

/// A peer that the new bundles do not know has this long to show a certificate that they do: its renewal may be on its
/// way. With it the promise holds that trust which ends cuts connections within two seconds.
const DOUBT: Duration = Duration::from_secs(1);

/// A connection as the endpoint knows it, whichever side dialled.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) wire: Wire,
    /// Who the peer was when the connection began; its identity stays.
    pub(crate) peer: Option<PeerIdentity>,
    /// What the peer presented then. Empty for a connection that was verified by pin.
    chain: Arc<[CertificateDer<'static>]>,
    /// What the connection began with.
    pub(crate) terms: Terms,
    renewed: Mutex<Renewed>,
    pub(crate) load: Load,
    pub(crate) active: Box<dyn Fn() -> usize + Send + Sync>,
    flow: Box<dyn Fn() -> Flow + Send + Sync>,
    wheel: Wheel,
    profile: Profile,
    alpn: String,
    pub(crate) negotiated: Negotiated,
    /// Cancelled when the connection takes no more requests.
    pub(crate) retired: CancellationToken,
    opened: Instant,
    /// The first reason to end wins.
    ended: OnceLock<EndReason>,
    idle: Mutex<Idle>,
    sightings: Mutex<Sightings>,
}

/// How the streams of a connection stand. Over TCP, where the kernel and `h2` keep that to themselves, all is zero.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Flow {
    /// Those that send.
    pub(crate) blocked: Blocked,
    /// Those that are read.
    pub(crate) standing: Standing,
    /// Whether the peer takes parity beneath QUIC.
    pub(crate) takes_parity: bool,
}

/// What was shown on the connection since it began.
#[derive(Default)]
struct Renewed {
    /// The end of the certificate of ours that the peer has now.
    own_not_after: Option<SystemTime>,
    peer: Option<(PeerIdentity, Arc<[CertificateDer<'static>]>)>,
    /// Until when a peer that is not trusted any more may show a new certificate.
    doubt: Option<Instant>,
}

/// What the last look saw.
struct Idle {
    carried: u64,
    since: Instant,
}

impl Link {
    pub(crate) fn remote(&self) -> SocketAddr {
        self.wire.remote()
    }

    pub(crate) fn is_over_tcp(&self) -> bool {
        matches!(self.wire, Wire::Tcp(_))
    }

    /// No new requests; what is under way goes on. True the first time.
    pub(crate) fn retire(&self, reason: EndReason) -> bool {
        let first = self.load.retire();
        if first {
            let _ = self.ended.set(reason);
            self.retired.cancel();
            tracing::debug!(
                connection = self.id,
                peer = %self.remote(),
                direction = %self.terms.direction,
                reason = reason.label(),
                "connection retired"
            );
        }
        first
    }

    /// Ends the connection now, whatever is under way on it.
    pub(crate) fn close(&self, reason: EndReason) {
        self.retire(reason);
        self.wire.close(reason);
    }

    /// Closes a retired connection on which nothing is left to do.
    pub(crate) fn close_retired(&self) {
        let reason = self.end_reason().unwrap_or(EndReason::Idle);
        self.wire.close(reason);
    }

    /// What looks at the path have shown.
    pub(crate) fn sightings(&self) -> MutexGuard<'_, Sightings> {
        // Plain numbers: whole after every statement.
        self.sightings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The most that may be under way or wait for that.
    pub(crate) fn send_window(&self) -> u64 {
        self.profile.send_window
    }

    /// Whether the peer has said that it takes parity beneath QUIC, and sends it.
    pub(crate) fn takes_parity(&self) -> bool {
        (self.flow)().takes_parity
    }

    pub(crate) fn copying(&self) -> Copying {
        self.profile.copying
    }

    pub(crate) fn end_reason(&self) -> Option<EndReason> {
        self.ended.get().copied()
    }

    /// How long no request has been under way, as far as successive looks can tell.
    pub(crate) fn idle_for(&self, now: Instant) -> Duration {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let carried = self.load.carried();
        if (self.active)() > 0 || idle.carried != carried {
            *idle = Idle {
                carried,
                since: now,
            };
        }
        now.duration_since(idle.since)
    }

    fn renewed(&self) -> MutexGuard<'_, Renewed> {
        // Each change is one field put in place.
        self.renewed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has a certificate of ours with this end.
    pub(crate) fn renew_own(&self, not_after: SystemTime) {
        self.renewed().own_not_after = Some(not_after);
    }

    /// The peer has proven to hold a new certificate.
    pub(crate) fn renew_peer(&self, peer: PeerIdentity, chain: Arc<[CertificateDer<'static>]>) {
        let mut renewed = self.renewed();
        renewed.peer = Some((peer, chain));
        renewed.doubt = None;
    }

    /// Who the peer is, by the certificate that it has shown last.
    pub(crate) fn peer_now(&self) -> Option<PeerIdentity> {
        let renewed = self.renewed();
        let shown = renewed.peer.as_ref().map(|(peer, _)| peer);
        shown.or(self.peer.as_ref()).cloned()
    }

    /// The terms by the certificates that both ends have shown last.
    pub(crate) fn terms_now(&self) -> Terms {
        let renewed = self.renewed();
        let peer = renewed.peer.as_ref().map(|(peer, _)| peer.not_after);
        Terms {
            own_not_after: renewed.own_not_after.or(self.terms.own_not_after),
            peer_not_after: peer.or(self.terms.peer_not_after),
            ..self.terms.clone()
        }
    }

    /// When to decide about a peer that is in doubt.
    pub(crate) fn doubt(&self) -> Option<Instant> {
        self.renewed().doubt
    }

    /// Whether a peer that is not trusted as it stands may still show a new certificate.
    pub(crate) fn may_show_another(&self, now: Instant) -> bool {
        if (self.active)() == 0 || !matches!(self.wire, Wire::Quic(_)) {
            return false;
        }
        now < *self.renewed().doubt.get_or_insert(now + DOUBT)
    }

    /// Whether the bundles still vouch for the peer. What it began with must not be revoked, whatever it shows since.
    pub(crate) fn verify(&self, bundles: &BundleSet, now: SystemTime) -> Result<(), VerifyError> {
        let Some(first) = self.chain.first() else {
            return Ok(());
        };
        check_revoked(first, bundles)?;
        let shown = self.renewed().peer.as_ref().map(|(_, chain)| chain.clone());
        let chain = shown.unwrap_or_else(|| self.chain.clone());
        let usage = match self.terms.direction {
            Direction::Inbound => Usage::Client,
            Direction::Outbound => Usage::Server,
        };
        if let Some(leaf) = chain.first() {
            check_revoked(leaf, bundles)?;
        }
        verify_chain(&chain, bundles, now, usage)?;
        self.renewed().doubt = None;
        Ok(())
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let path = Path::of(&self.wire);
        let total = Seen {
            sent: path.sent_packets,
            lost: path.lost_packets,
        };
        let now = Instant::now();
        let (recent_loss, silent, migrations) = {
            let sightings = self.sightings();
            (
                sightings.recent_loss(total),
                sightings.silent(now, path.heard),
                sightings.migrations(),
            )
        };
        let (flow, rtt) = ((self.flow)(), self.wire.rtt());
        let Flow {
            blocked, standing, ..
        } = flow;
        let choice = self.wheel.choice();
        let on_quic = self.wire.carrier() == Carrier::Quic;
        ConnectionStats {
            id: self.id,
            direction: self.terms.direction,
            peer: self.peer_now(),
            carrier: self.wire.carrier(),
            alpn: self.alpn.clone(),
            addr: self.remote(),
            opened: self.terms.opened,
            age: now.duration_since(self.opened),
            generation: self.terms.generation,
            retired: self.end_reason(),
            requests_active: (self.active)(),
            requests_carried: self.load.carried(),
            negotiated: self.negotiated,
            profile: self.profile.name,
            measured: on_quic.then(|| paths::measure(rtt, path.min_rtt, recent_loss)),
            congestion: on_quic.then_some(choice),
            copying: false,
            rtt,
            min_rtt: path.min_rtt,
            recent_loss,
            congestion_events: match choice {
                Congestion::Discerning => self.wheel.losses().congestion(),
                Congestion::Cubic | Congestion::Bbr => path.congestion_events,
            },
            random_losses: self.wheel.losses().random(),
            silent,
            black_holes: path.black_holes,
            migrations,
            blocked: blocked.total,
            blocked_streams: blocked.streams,
            out_of_credit: path.out_of_credit,
            standing_readers: standing.still,
            pressed: standing.pressed,
            lent: standing.lent,
            lost_packets: path.lost_packets,
            sent_packets: path.sent_packets,
            mtu: path.mtu,
            congestion_window: path.congestion_window,
            bytes_sent: path.bytes_sent,
            bytes_received: path.bytes_received,
        }
    }
}

/// What a wire tells of its path.
#[derive(Default)]
struct Path {
    min_rtt: Duration,
    congestion_events: u64,
    black_holes: u64,
    out_of_credit: u64,
    /// Datagrams that arrived.
    heard: u64,
    lost_packets: u64,
    sent_packets: u64,
    mtu: u16,
    congestion_window: u64,
    bytes_sent: u64,
    bytes_received: u64,
}

impl Path {
    fn of(wire: &Wire) -> Self {
        match wire {
            Wire::Quic(quic) => {
                let stats = quic.stats();
                Self {
                    min_rtt: stats.path.min_rtt,
                    congestion_events: stats.path.congestion_events,
                    black_holes: stats.path.black_holes_detected,
                    out_of_credit: stats.frame_tx.stream_data_blocked + stats.frame_tx.data_blocked,
                    heard: stats.udp_rx.datagrams,
                    lost_packets: stats.path.lost_packets,
                    sent_packets: stats.path.sent_packets,
                    mtu: stats.path.current_mtu,
                    congestion_window: stats.path.cwnd,
                    bytes_sent: stats.udp_tx.bytes,
                    bytes_received: stats.udp_rx.bytes,
                }
            }
            // Its packets are the kernel's.
            Wire::Tcp(wire) => Self {
                min_rtt: wire.rtt(),
                bytes_sent: wire.sent(),
                bytes_received: wire.received(),
                ..Self::default()
            },
        }
    }
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("id", &self.id)
            .field("direction", &self.terms.direction)
            .field("peer", &self.peer.as_ref().map(|peer| &peer.id))
            .finish_non_exhaustive()
    }
}

/// What makes a [`Link`] of a connection whose handshake is done.
pub(crate) struct NewLink {
    pub(crate) wire: Wire,
    pub(crate) peer: Option<PeerIdentity>,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) terms: Terms,
    /// Requests under way, as the HTTP layer counts them.
    pub(crate) active: Box<dyn Fn() -> usize + Send + Sync>,
    /// How they stand, likewise.
    pub(crate) flow: Box<dyn Fn() -> Flow + Send + Sync>,
    pub(crate) wheel: Wheel,
    pub(crate) profile: Profile,
}

/// All links of an endpoint, by id.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: AtomicU64,
    links: Mutex<BTreeMap<u64, Arc<Link>>>,
    /// A link that the warden should look at soon.
    pub(crate) look: Notify,
    /// A link is gone.
    gone: Notify,
}

impl Registry {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Link>>> {
        // The map is whole after every statement.
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a link. The warden looks at all of them every few seconds; `urgent` makes it look now.
    pub(crate) fn add(&self, new: NewLink, urgent: bool) -> Arc<Link> {
        let NewLink {
            wire,
            peer,
            chain,
            terms,
            active,
            flow,
            wheel,
            profile,
        } = new;
        let now = Instant::now();
        let (alpn, negotiated) = match &wire {
            Wire::Quic(quic) => {
                let handshake = session::handshake_data(quic);
                (handshake.alpn, handshake.negotiated)
            }
            Wire::Tcp(tcp) => (crate::tcp::ALPN.to_vec(), tcp.negotiated()),
        };
        let link = Arc::new(Link {
            id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            wire,
            peer,
            chain,
            terms,
            renewed: Mutex::default(),
            active,
            flow,
            wheel,
            profile,
            alpn: String::from_utf8_lossy(&alpn).into_owned(),
            negotiated,
            load: Load::default(),
            retired: CancellationToken::new(),
            opened: now,
            ended: OnceLock::new(),
            sightings: Mutex::new(Sightings::new(now)),
            idle: Mutex::new(Idle {
                carried: 0,
                since: now,
            }),
        });
        self.lock().insert(link.id, link.clone());
        if urgent {
            self.look.notify_one();
        }
        link
    }

    pub(crate) fn remove(&self, link: &Link) {
        link.retire(EndReason::Lost);
        self.lock().remove(&link.id);
        self.gone.notify_waiters();
    }

    /// Completes when there is no link.
    pub(crate) async fn empty(&self) {
        loop {
            let mut gone = pin!(self.gone.notified());
            gone.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            gone.await;
        }
    }

    pub(crate) fn all(&self) -> Vec<Arc<Link>> {
        self.lock().values().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }
}
