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
use weft_certs::{BundleSet, CertificateDer, PeerIdentity, Usage, VerifyError, verify_chain};

use crate::lifetime::{EndReason, Terms};
use crate::load::Load;
use crate::paths::Seen;
use crate::wire::Wire;
use crate::{ConnectionStats, Direction};

/// A connection as the endpoint knows it, whichever side dialled.
pub(crate) struct Link {
    pub(crate) id: u64,
    pub(crate) wire: Wire,
    pub(crate) peer: Option<PeerIdentity>,
    /// What the peer presented, to be verified again when the bundles change. Empty for a connection that
    /// was verified by pin.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
    pub(crate) terms: Terms,
    pub(crate) load: Load,
    pub(crate) active: Box<dyn Fn() -> usize + Send + Sync>,
    /// Cancelled when the connection takes no more requests.
    pub(crate) retired: CancellationToken,
    opened: Instant,
    /// The first reason to end wins.
    ended: OnceLock<EndReason>,
    idle: Mutex<Idle>,
    seen: Mutex<Seen>,
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

    /// The path's counters when somebody last judged by them.
    pub(crate) fn seen(&self) -> Seen {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_seen(&self, seen: Seen) {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
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
        let path = Path::of(&self.wire);
        ConnectionStats {
            id: self.id,
            direction: self.terms.direction,
            peer: self.peer.clone(),
            carrier: self.wire.carrier(),
            alpn: path.alpn,
            addr: self.remote(),
            opened: self.terms.opened,
            age: Instant::now().duration_since(self.opened),
            generation: self.terms.generation,
            retired: self.end_reason(),
            requests_active: (self.active)(),
            requests_carried: self.load.carried(),
            rtt: self.wire.rtt(),
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
struct Path {
    alpn: String,
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
                    alpn: alpn(quic),
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
                alpn: String::from_utf8_lossy(crate::tcp::ALPN).into_owned(),
                lost_packets: 0,
                sent_packets: 0,
                mtu: 0,
                congestion_window: 0,
                bytes_sent: wire.sent(),
                bytes_received: wire.received(),
            },
        }
    }
}

fn alpn(quic: &quinn::Connection) -> String {
    quic.handshake_data()
        .and_then(|data| data.downcast::<quinn::crypto::rustls::HandshakeData>().ok())
        .and_then(|data| data.protocol)
        .map_or_else(String::new, |protocol| {
            String::from_utf8_lossy(&protocol).into_owned()
        })
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
        } = new;
        let now = Instant::now();
        let link = Arc::new(Link {
            id: self.next.fetch_add(1, Ordering::Relaxed) + 1,
            wire,
            peer,
            chain,
            terms,
            active,
            load: Load::default(),
            retired: CancellationToken::new(),
            opened: now,
            ended: OnceLock::new(),
            seen: Mutex::default(),
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
