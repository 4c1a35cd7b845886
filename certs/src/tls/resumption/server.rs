//! The accepting side: sessions by ticket, one for each certificate that clients have shown.
//!
//! A ticket is a random name of a session that is kept here. There is no key that opens tickets, and so none to be
//! stolen: what is forgotten here is good for nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::ServerConfig;
use rustls::server::StoresServerSessions;
use zeroize::Zeroizing;

use super::memory::Memory;
use super::{Epoch, Recheck, Resumable, Time, end_of};
use crate::tls::KeyExchange;
use crate::tls::server::{ClientAuth, ClientVerifier, Observer, verifying};
use crate::{Clock, IdentitySource, PeerIdentity};

/// The largest session that is kept, in bytes: a chain of six certificates of common size.
const LARGEST: usize = 16 << 10;

/// What an accepting node needs to resume sessions. Secrets are in memory only.
#[derive(Debug)]
pub struct ServerSessions {
    source: Arc<IdentitySource>,
    key_exchange: KeyExchange,
    time: Time,
    kept: Mutex<Kept>,
}

struct Kept {
    by_ticket: Memory<Vec<u8>, Session>,
    /// The newest ticket of each client, by the fingerprint of its certificate.
    newest: BTreeMap<String, Vec<u8>>,
}

/// As rustls has encoded it, with its secret.
struct Session {
    secret: Zeroizing<Vec<u8>>,
    client: String,
}

impl ServerSessions {
    /// Remembers `most` clients. All connections have this key exchange.
    pub fn new(
        source: Arc<IdentitySource>,
        key_exchange: KeyExchange,
        clock: Clock,
        most: usize,
    ) -> Arc<Self> {
        Arc::new(Self {
            source,
            key_exchange,
            time: Time(clock),
            kept: Mutex::new(Kept {
                by_ticket: Memory::new(most),
                newest: BTreeMap::new(),
            }),
        })
    }

    /// The config of one connection: as [`server_config`](crate::tls::server_config), and with one ticket for a client
    /// that has shown its certificate. One that joins gets none.
    pub fn config(
        self: &Arc<Self>,
        client_auth: ClientAuth,
        alpn: &[&[u8]],
        observer: Observer,
    ) -> Resumable<ServerConfig> {
        let epoch = Epoch::of(&self.source.current());
        let verifier = Arc::new(ClientVerifier::new(
            self.source.clone(),
            client_auth,
            observer,
        ));
        let mut config = verifying(
            self.source.clone(),
            verifier.clone(),
            alpn,
            self.key_exchange,
            self.time.0.clone(),
        );
        config.send_tls13_tickets = 1;
        config.session_storage = Arc::new(Arrival {
            sessions: self.clone(),
            epoch,
            verifier: verifier.clone(),
        });
        let time = self.time.clone();
        let recheck = Recheck::by(move |chain| verifier.verify(chain, time.now()));
        Resumable { config, recheck }
    }

    /// Wipes all sessions: what they were made under has changed. None would be used anyway, but they would lie about.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Sessions that can be resumed.
    pub fn len(&self) -> usize {
        self.lock().by_ticket.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(super) fn names(&self) -> usize {
        self.lock().newest.len()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // A panic half way would leave a name without a session, which is found to be nothing.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, epoch: Epoch, ticket: Vec<u8>, client: &PeerIdentity, secret: Vec<u8>) -> bool {
        let secret = Zeroizing::new(secret);
        let (own, now) = (self.source.current(), self.time.now());
        if Epoch::of(&own) != epoch || secret.len() > LARGEST {
            return false;
        }
        let until = end_of(&own, client.not_after, now);
        let client = client.fingerprint.clone();
        let session = Session { secret, client };
        self.lock().keep(epoch, ticket, (now, until), session)
    }

    fn take(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let epoch = Epoch::of(&self.source.current());
        self.lock().take(epoch, &ticket.to_vec(), self.time.now())
    }
}

type Life = (std::time::SystemTime, std::time::SystemTime);

impl Kept {
    fn keep(&mut self, epoch: Epoch, ticket: Vec<u8>, life: Life, session: Session) -> bool {
        let client = session.client.clone();
        if let Some(older) = self.newest.remove(&client) {
            self.by_ticket.remove_value(&older);
        }
        let gone = self.by_ticket.put(epoch, ticket.clone(), life, session);
        // Another epoch than before empties the memory, and a full one loses its oldest.
        if self.by_ticket.len() == 1 {
            self.newest.clear();
        }
        let kept = gone.as_ref().is_none_or(|gone| gone.client != client);
        if let Some(gone) = gone {
            self.newest.remove(&gone.client);
        }
        if kept {
            self.newest.insert(client, ticket);
        }
        kept
    }

    fn take(
        &mut self,
        epoch: Epoch,
        ticket: &Vec<u8>,
        now: std::time::SystemTime,
    ) -> Option<Vec<u8>> {
        let mut session = self.by_ticket.take(epoch, ticket, now)?;
        self.newest.remove(&session.client);
        Some(std::mem::take(&mut *session.secret))
    }

    fn clear(&mut self) {
        self.by_ticket.clear();
        self.newest.clear();
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kept({} sessions)", self.by_ticket.len())
    }
}

/// The store of one connection, as rustls sees it.
struct Arrival {
    sessions: Arc<ServerSessions>,
    epoch: Epoch,
    /// Knows whom it has let through.
    verifier: Arc<ClientVerifier>,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").finish_non_exhaustive()
    }
}

impl StoresServerSessions for Arrival {
    /// Called once the client's last message is verified. False: no ticket is sent.
    fn put(&self, ticket: Vec<u8>, secret: Vec<u8>) -> bool {
        match self.verifier.peer() {
            Some(client) => self.sessions.keep(self.epoch, ticket, client, secret),
            None => false,
        }
    }

    fn get(&self, _ticket: &[u8]) -> Option<Vec<u8>> {
        None // of TLS 1.2
    }

    fn take(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.sessions.take(ticket)
    }

    fn can_cache(&self) -> bool {
        true
    }
}
