//! Every live connection of an endpoint, and what is known of it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use quinn::VarInt;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use weft_certs::{BundleSet, CertificateDer, PeerIdentity, Usage, VerifyError, verify_chain};
use weft_h3::Blocked;

use crate::lifetime::{EndReason, Terms};
use crate::load::Load;
use crate::paths::{self, Seen, Sightings};
use crate::steer::Wheel;
use crate::{Congestion, ConnectionStats, Copying, Direction, Negotiated, Profile, session};

/// H3_NO_ERROR: a connection that ends as it should (RFC 9114 §8.1).
const NO_ERROR: VarInt = VarInt::from_u32(0x100);

/// A connection as the endpoint knows it, whichever side dialled.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) quic: quinn::Connection,
    pub(crate) peer: Option<PeerIdentity>,
    /// What the peer presented, to be verified again when the bundles change. Empty for a connection that
    /// was verified by pin.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) terms: Terms,
    pub(crate) load: Load,
    pub(crate) active: Box<dyn Fn() -> usize + Send + Sync>,
    blocked: Box<dyn Fn() -> Blocked + Send + Sync>,
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

/// What the last look saw.
struct Idle {
    carried: u64,
    since: Instant,
}

impl Link {
    pub(crate) fn remote(&self) -> SocketAddr {
        self.quic.remote_address()
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
        self.say_goodbye(reason);
    }

    fn say_goodbye(&self, reason: EndReason) {
        // Of a connection that has ended already, quinn would forget why.
        if self.quic.close_reason().is_none() {
            self.quic.close(NO_ERROR, reason.to_string().as_bytes());
        }
    }

    /// Closes a retired connection on which nothing is left to do.
    pub(crate) fn close_retired(&self) {
        let reason = self.end_reason().unwrap_or(EndReason::Idle);
        self.say_goodbye(reason);
    }

    /// What looks at the path have shown.
    pub(crate) fn sightings(&self) -> MutexGuard<'_, Sightings> {
        // Plain numbers: whole after every statement.
        self.sightings
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
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

    /// Whether the bundles still vouch for the peer.
    pub(crate) fn verify(&self, bundles: &BundleSet, now: SystemTime) -> Result<(), VerifyError> {
        if self.chain.is_empty() {
            return Ok(());
        }
        let usage = match self.terms.direction {
            Direction::Inbound => Usage::Client,
            Direction::Outbound => Usage::Server,
        };
        verify_chain(&self.chain, bundles, now, usage).map(drop)
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let quic = self.quic.stats();
        let total = Seen {
            sent: quic.path.sent_packets,
            lost: quic.path.lost_packets,
        };
        let now = Instant::now();
        let (recent_loss, silent, migrations) = {
            let sightings = self.sightings();
            (
                sightings.recent_loss(total),
                sightings.silent(now, quic.udp_rx.datagrams),
                sightings.migrations(),
            )
        };
        let blocked = (self.blocked)();
        ConnectionStats {
            id: self.id,
            direction: self.terms.direction,
            peer: self.peer.clone(),
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
            measured: paths::measure(quic.path.rtt, quic.path.min_rtt, recent_loss),
            congestion: self.wheel.choice(),
            copying: false,
            rtt: quic.path.rtt,
            min_rtt: quic.path.min_rtt,
            recent_loss,
            congestion_events: match self.wheel.choice() {
                Congestion::Discerning => self.wheel.losses().congestion(),
                Congestion::Cubic | Congestion::Bbr => quic.path.congestion_events,
            },
            random_losses: self.wheel.losses().random(),
            silent,
            black_holes: quic.path.black_holes_detected,
            migrations,
            blocked: blocked.total,
            blocked_streams: blocked.streams,
            out_of_credit: quic.frame_tx.stream_data_blocked + quic.frame_tx.data_blocked,
            lost_packets: quic.path.lost_packets,
            sent_packets: quic.path.sent_packets,
            mtu: quic.path.current_mtu,
            congestion_window: quic.path.cwnd,
            bytes_sent: quic.udp_tx.bytes,
            bytes_received: quic.udp_rx.bytes,
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
    pub(crate) quic: quinn::Connection,
    pub(crate) peer: Option<PeerIdentity>,
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) terms: Terms,
    /// Requests under way, as the HTTP/3 layer counts them.
    pub(crate) active: Box<dyn Fn() -> usize + Send + Sync>,
    /// How long streams waited, likewise.
    pub(crate) blocked: Box<dyn Fn() -> Blocked + Send + Sync>,
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
            quic,
            peer,
            chain,
            terms,
            active,
            blocked,
            wheel,
            profile,
        } = new;
        let now = Instant::now();
        let handshake = session::handshake_data(&quic);
        let link = Arc::new(Link {
            id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            quic,
            peer,
            chain,
            terms,
            active,
            blocked,
            wheel,
            profile,
            alpn: String::from_utf8_lossy(&handshake.alpn).into_owned(),
            negotiated: handshake.negotiated,
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
