//! The dialling side: the newest ticket of each peer, for one dial.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use rustls::client::{
    ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls12Resumption,
    Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, NamedGroup};

use super::memory::Memory;
use super::{Epoch, Recheck, Resumable, Time, end_of};
use crate::tls::client::{PeerVerifier, Presenter, builder, finish, peer_verifier};
use crate::tls::{Failure, KeyExchange};
use crate::{Clock, ExpectedPeer, IdentitySource};

/// Where was dialled, and who had to answer.
type Key = (SocketAddr, ExpectedPeer);

/// What a dialling node needs to resume sessions. Secrets are in memory only.
///
/// rustls resumes a session only under the very verifier and resolver that it was made with. So each session keeps its
/// verifier, and the resolver is one for all.
#[derive(Debug)]
pub struct ClientSessions {
    source: Arc<IdentitySource>,
    key_exchange: KeyExchange,
    time: Time,
    presenter: Arc<Presenter>,
    memory: Mutex<Memory<Key, Session>>,
}

struct Session {
    ticket: Tls13ClientSessionValue,
    verifier: Arc<PeerVerifier>,
}

impl ClientSessions {
    /// Remembers `most` peers. All dials have this key exchange.
    pub fn new(
        source: Arc<IdentitySource>,
        key_exchange: KeyExchange,
        clock: Clock,
        most: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            presenter: Arc::new(Presenter(source.clone())),
            source,
            key_exchange,
            time: Time(clock),
            memory: Mutex::new(Memory::new(most)),
        })
    }

    /// The config of one dial of this address: as [`client_config`](crate::tls::client_config), and with the ticket
    /// that is there. The ticket is spent by it, whatever becomes of the dial: after a refusal the next handshake is
    /// a full one.
    pub fn config(
        self: &Arc<Self>,
        addr: SocketAddr,
        expected: ExpectedPeer,
        alpn: &[&[u8]],
        failure: Failure,
    ) -> Resumable<ClientConfig> {
        let epoch = Epoch::of(&self.source.current());
        let key = (addr, expected);
        let kept = self.lock().take(epoch, &key, self.time.now());
        let (ticket, verifier) = match kept {
            Some(Session { ticket, verifier }) => {
                verifier.report_to(failure);
                (Some(ticket), verifier)
            }
            None => {
                let verifier = peer_verifier(self.source.clone(), key.1.clone(), failure);
                (None, Arc::new(verifier))
            }
        };
        let presenter = self.presenter.clone();
        let config = builder(
            self.key_exchange,
            self.time.0.clone(),
            verifier.clone(),
            |builder| builder.with_client_cert_resolver(presenter),
        );
        let mut config = finish(config, alpn);
        let dial = Dial {
            sessions: self.clone(),
            key,
            epoch,
            verifier: verifier.clone(),
            ticket: Mutex::new(ticket),
            has_one: AtomicBool::new(false),
        };
        config.resumption =
            Resumption::store(Arc::new(dial)).tls12_resumption(Tls12Resumption::Disabled);
        let time = self.time.clone();
        let recheck = Recheck::by(move |chain| verifier.verify(chain, time.now()));
        Resumable { config, recheck }
    }

    /// Wipes all tickets: what they were made under has changed. None would be used anyway, but they would lie about.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Tickets that lie ready.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn lock(&self) -> MutexGuard<'_, Memory<Key, Session>> {
        // Each change is one call that does not panic half way.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, epoch: Epoch, key: Key, peer_not_after: SystemTime, session: Session) {
        let (own, now) = (self.source.current(), self.time.now());
        if Epoch::of(&own) == epoch {
            let until = end_of(&own, peer_not_after, now);
            drop(self.lock().put(epoch, key, (now, until), session));
        }
    }
}

impl std::fmt::Debug for Memory<Key, Session> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Memory({} tickets)", self.len())
    }
}

/// The store of one dial, as rustls sees it: gives its ticket once, takes one once.
///
/// One ticket of each connection makes a chain of sessions, each used by one dial. So no two dials ever share a verifier
/// at the same time, and with that the place where it tells of a failure.
struct Dial {
    sessions: Arc<ClientSessions>,
    key: Key,
    epoch: Epoch,
    verifier: Arc<PeerVerifier>,
    ticket: Mutex<Option<Tls13ClientSessionValue>>,
    has_one: AtomicBool,
}

impl std::fmt::Debug for Dial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dial").finish_non_exhaustive()
    }
}

impl ClientSessionStore for Dial {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    /// The first group of the provider is always the right one to begin with.
    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        // Early data stays off, and a server of ours never offers it.
        if ticket.max_early_data_size() > 0 || self.has_one.swap(true, Ordering::Relaxed) {
            return;
        }
        // rustls has asked the verifier, or the recheck has, before any ticket can be read.
        let Some(peer_not_after) = self.verifier.peer_not_after() else {
            return;
        };
        let session = Session {
            ticket,
            verifier: self.verifier.clone(),
        };
        self.sessions
            .keep(self.epoch, self.key.clone(), peer_not_after, session);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let mut ticket = self.ticket.lock().unwrap_or_else(PoisonError::into_inner);
        ticket.take()
    }
}
