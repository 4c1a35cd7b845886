//! Connections that we dialled: one per address, expected identity and generation of our own certificate.
//!
//! A request finds its connection without any lock. Only a miss takes one, for a few lines: it joins the
//! dial that is under way, or starts it. Nobody waits for another target's dial.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Request;
use tokio::sync::watch;
use tokio::time::Instant;
use weft_certs::ExpectedPeer;
use weft_env::Rng;

use crate::backoff::Backoff;
use crate::core::Core;
use crate::{Connection, DialError, Direction, Exchange, Limits, RequestError, Target};

/// A request that met a connection in the moment of its retirement goes to the next one.
const ATTEMPTS: usize = 3;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    addr: SocketAddr,
    expected: ExpectedPeer,
}

impl Key {
    fn of(target: &Target) -> Self {
        Self {
            addr: target.addr,
            expected: target.expected.clone(),
        }
    }
}

type Outcome = Option<Result<Connection, Arc<DialError>>>;

/// The pool's memory, inside [`Core`].
pub(crate) struct PoolState {
    ready: ArcSwap<BTreeMap<Key, Connection>>,
    dials: Mutex<Dials>,
}

struct Dials {
    pending: BTreeMap<Key, watch::Receiver<Outcome>>,
    backoff: Backoff<Key>,
    rng: Rng,
}

impl PoolState {
    pub(crate) fn new(limits: &Limits, rng: Rng) -> Self {
        let backoff = Backoff::new(limits.dial_backoff, limits.max_remembered_failures);
        let dials = Dials {
            pending: BTreeMap::new(),
            backoff,
            rng,
        };
        Self {
            ready: ArcSwap::default(),
            dials: Mutex::new(dials),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Dials> {
        // Each change under the lock is one call that does not panic half way.
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn forget_failures(&self) {
        self.lock().backoff.forget_all();
    }

    fn find(&self, key: &Key, generation: u64) -> Option<Connection> {
        let ready = self.ready.load();
        ready
            .get(key)
            .filter(|connection| connection.is_usable(generation))
            .cloned()
    }

    /// Copies the map: connections come and go rarely, requests read it all the time.
    fn change(
        &self,
        _held: &MutexGuard<'_, Dials>,
        change: impl FnOnce(&mut BTreeMap<Key, Connection>),
    ) {
        let mut ready = BTreeMap::clone(&self.ready.load());
        change(&mut ready);
        self.ready.store(Arc::new(ready));
    }

    /// Another connection takes the place of one that is about to retire.
    pub(crate) fn replace(&self, key: &Key, connection: Connection) {
        let dials = self.lock();
        if !connection.is_retired() {
            self.change(&dials, |ready| drop(ready.insert(key.clone(), connection)));
        }
    }

    /// A connection ended. If the peer rejected us, that is remembered as a failed dial.
    pub(crate) fn ended(&self, key: &Key, id: u64, rejected: Option<&DialError>) {
        let mut dials = self.lock();
        self.change(&dials, |ready| {
            if ready
                .get(key)
                .is_some_and(|connection| connection.id() == id)
            {
                ready.remove(key);
            }
        });
        if let Some(error) = rejected {
            let draw = dials.rng.next_u64();
            dials
                .backoff
                .failed(key.clone(), Arc::new(error.clone()), Instant::now(), draw);
        }
    }
}

impl std::fmt::Debug for PoolState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PoolState")
            .field("ready", &self.ready.load().len())
            .finish_non_exhaustive()
    }
}

/// The connections that a node dials. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pool {
    core: Arc<Core>,
}

enum Step {
    Ready(Connection),
    Wait(watch::Receiver<Outcome>),
}

impl Pool {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { core }
    }

    /// The connection to a target: the one there is, or a new one. Callers that ask at the same time share
    /// one dial, and one that gives up does not end it for the others.
    ///
    /// # Errors
    /// Why it could not be had. For a while after a failed dial the same reason is answered at once
    /// ([`DialError::Backoff`]), so that a balancer goes elsewhere.
    pub async fn connection(&self, target: &Target) -> Result<Connection, DialError> {
        let key = Key::of(target);
        let generation = self.core.identity.current().generation;
        if let Some(connection) = self.core.pool.find(&key, generation) {
            return Ok(connection);
        }
        let mut outcome = match self.join_or_dial(key, target, generation)? {
            Step::Ready(connection) => return Ok(connection),
            Step::Wait(outcome) => outcome,
        };
        match outcome.wait_for(Option::is_some).await.as_deref() {
            Ok(Some(Ok(connection))) => Ok(connection.clone()),
            Ok(Some(Err(error))) => Err(DialError::clone(error)),
            // The dialling task was ended with its owner.
            Ok(None) | Err(_) => Err(DialError::ShuttingDown),
        }
    }

    /// Sends a request's header to a target, on whatever connection is right now. What follows is in the
    /// [`Exchange`].
    ///
    /// # Errors
    /// As [`Pool::connection`] and [`Connection::request`].
    pub async fn request(
        &self,
        target: &Target,
        request: &Request<()>,
    ) -> Result<Exchange, RequestError> {
        self.request_with(target, request, Bytes::new(), false)
            .await
    }

    /// As [`request`](Self::request), with the first piece of the body (may be empty) in the same write, and
    /// with `end` the end of the request.
    ///
    /// # Errors
    /// As [`request`](Self::request).
    pub async fn request_with(
        &self,
        target: &Target,
        request: &Request<()>,
        content: Bytes,
        end: bool,
    ) -> Result<Exchange, RequestError> {
        let mut attempt = 1;
        loop {
            let connection = self.connection(target).await.map_err(RequestError::Dial)?;
            match connection.request_with(request, content.clone(), end).await {
                // Nothing was sent: rotation, or the peer's GOAWAY, came in between.
                Err(error) if error.was_not_sent() && attempt < ATTEMPTS => attempt += 1,
                other => return other,
            }
        }
    }

    /// Whether a connection to the target stands ready.
    #[must_use]
    pub fn is_connected(&self, target: &Target) -> bool {
        let generation = self.core.identity.current().generation;
        self.core.pool.find(&Key::of(target), generation).is_some()
    }

    fn join_or_dial(&self, key: Key, target: &Target, generation: u64) -> Result<Step, DialError> {
        let state = &self.core.pool;
        if self.core.is_closing() {
            return Err(DialError::ShuttingDown);
        }
        let mut dials = state.lock();
        // Another caller may have been faster.
        if let Some(connection) = state.find(&key, generation) {
            return Ok(Step::Ready(connection));
        }
        if let Some(outcome) = dials.pending.get(&key) {
            return Ok(Step::Wait(outcome.clone()));
        }
        if let Some(error) = dials.backoff.check(&key, Instant::now()) {
            return Err(error);
        }
        let (announce, outcome) = watch::channel(None);
        dials.pending.insert(key.clone(), outcome.clone());
        drop(dials);
        let dial = Dial {
            core: self.core.clone(),
            key: Some(key),
            announce,
        };
        let target = target.clone();
        self.core.tasks.spawn(dial.run(target));
        Ok(Step::Wait(outcome))
    }
}

/// A dial under way, in a task of its own: it ends by itself, not with whoever asked first.
struct Dial {
    core: Arc<Core>,
    /// `None` once the outcome is announced.
    key: Option<Key>,
    announce: watch::Sender<Outcome>,
}

impl Dial {
    async fn run(mut self, target: Target) {
        let Some(key) = self.key.clone() else { return };
        let result = self.core.dial(&target, key.clone()).await.map_err(Arc::new);
        if let Err(error) = &result {
            let reason = error.reason();
            self.core
                .refusals
                .record(Direction::Outbound, target.addr, reason, error.to_string());
        }
        let state = &self.core.pool;
        let mut dials = state.lock();
        match &result {
            Ok(connection) => {
                dials.backoff.succeeded(&key);
                // One that is lost already was struck off before it was entered.
                if !connection.is_retired() {
                    state.change(&dials, |ready| {
                        drop(ready.insert(key.clone(), connection.clone()))
                    });
                }
            }
            Err(error) => {
                let draw = dials.rng.next_u64();
                dials
                    .backoff
                    .failed(key.clone(), error.clone(), Instant::now(), draw);
            }
        }
        dials.pending.remove(&key);
        drop(dials);
        self.key = None;
        let _ = self.announce.send(Some(result));
    }
}

impl Drop for Dial {
    fn drop(&mut self) {
        if let Some(key) = self.key.take() {
            self.core.pool.lock().pending.remove(&key);
        }
    }
}
