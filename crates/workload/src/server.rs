//! The socket: who may connect how often, and for how long.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::watch;
use tokio::time::sleep;
use weft_certs::IdentitySource;
use weft_env::{DiskError, Env, Listener, Stream, Tasks};

use crate::entry::Entry;
use crate::executor::On;
use crate::jwt::TokenSource;
use crate::peer::Peer;
use crate::rpc;
use crate::session::{Session, Shared};

/// Connections of one user, so that no user can keep the others out.
const MAX_PER_USER: usize = 64;
/// Connections of all users.
const MAX_CONNECTIONS: usize = 512;
/// Calls at the same time on one connection: an Envoy has one for each secret.
const MAX_CALLS: u32 = 128;
/// A request's head is a path and a few words of metadata.
const MAX_HEAD: u32 = 16 * 1024;
/// A connection without a call is closed after this.
const IDLE: Duration = Duration::from_secs(300);
/// The kernel tells when a process ends; a ping finds one that is stuck.
const PING: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(20));
/// After an error of the listener itself, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Its directory or its mode.
    #[error("the workload socket: {0}")]
    Place(#[from] DiskError),
    /// The socket itself.
    #[error("the workload socket: {0}")]
    Listen(#[from] io::Error),
}

/// What is given out, and to whom.
pub struct Workload {
    /// The identity.
    pub identity: Arc<IdentitySource>,
    /// Who may have it. Nobody, if this is empty.
    pub allow: Vec<Entry>,
    /// Where its tokens come from.
    pub tokens: Arc<dyn TokenSource>,
}

/// A socket that is open, and that nobody answers on yet.
#[derive(Debug)]
pub struct WorkloadSocket {
    listener: Arc<Listener>,
    path: PathBuf,
}

impl WorkloadSocket {
    /// Opens the socket for every user of the machine: who gets something is decided for each by its entries.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn open(env: &Env, path: &Path) -> Result<Self, Error> {
        let path = path.to_owned();
        let place = path.parent().unwrap_or(Path::new("/")).to_owned();
        env.disk(move |disk| disk.socket_dir(&place)).await?;
        let listener = env.listen_unix(&path).await?;
        let socket = path.clone();
        env.disk(move |disk| disk.open_socket(&socket)).await?;
        Ok(Self::on(Arc::new(listener), path))
    }

    /// A socket that is open already, from another process.
    #[must_use]
    pub fn on(listener: Arc<Listener>, path: PathBuf) -> Self {
        Self { listener, path }
    }

    /// What it listens with, to be shared with another process.
    #[must_use]
    pub fn listener(&self) -> &Arc<Listener> {
        &self.listener
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Answers until `tasks` is shut down. Every task that this needs is one of `tasks`.
    pub async fn serve(self, workload: Workload, tasks: Tasks) {
        let shared = Shared::new(tasks.env(), workload);
        let (places, stop) = (Places::default(), tasks.token());
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                sleep(PAUSE).await;
                continue;
            };
            let Some(peer) = Peer::of(&stream) else {
                continue;
            };
            let Some(place) = places.take(peer.uid()) else {
                tracing::debug!(
                    uid = peer.uid(),
                    "too many connections to the workload socket"
                );
                continue;
            };
            let session = Arc::new(Session {
                shared: Arc::clone(&shared),
                peer: Arc::new(peer),
                tasks: tasks.child(),
                calls: watch::Sender::new(0),
            });
            drop(tasks.spawn(async move {
                let _place = place;
                connection(stream, session).await;
            }));
        }
    }
}

async fn connection(stream: Stream, session: Arc<Session>) {
    let service = {
        let session = Arc::clone(&session);
        service_fn(move |request| {
            let session = Arc::clone(&session);
            async move { Ok::<_, Infallible>(rpc::answer(session, request).await) }
        })
    };
    let connection = http2::Builder::new(On(session.tasks.clone()))
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_CALLS)
        .max_header_list_size(MAX_HEAD)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let stop = session.tasks.token();
    // A caller that hangs up is none of our business.
    tokio::select! {
        _ = &mut connection => return,
        () = stop.cancelled() => {}
        () = idle(session.calls.subscribe()) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// Ends when there has been no call for long.
async fn idle(mut calls: watch::Receiver<usize>) {
    while calls.wait_for(|calls| *calls == 0).await.is_ok() {
        tokio::select! {
            () = sleep(IDLE) => return,
            _ = calls.changed() => {}
        }
    }
}

/// How many connections each user has.
#[derive(Default, Clone)]
struct Places(Arc<Mutex<BTreeMap<u32, usize>>>);

/// One of them.
struct Place {
    places: Places,
    uid: u32,
}

impl Places {
    fn take(&self, uid: u32) -> Option<Place> {
        let mut users = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let total: usize = users.values().sum();
        let own = users.get(&uid).copied().unwrap_or_default();
        if own >= MAX_PER_USER || total >= MAX_CONNECTIONS {
            return None;
        }
        users.insert(uid, own + 1);
        Some(Place {
            places: self.clone(),
            uid,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut users = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = users.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                users.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_connection_is_idle_once_it_has_had_no_call_for_five_minutes() {
        let calls = watch::Sender::new(1);
        let waiting = idle(calls.subscribe());
        tokio::pin!(waiting);
        let began = tokio::time::Instant::now();
        // A call that goes on for a day.
        let day = Duration::from_secs(86_400);
        assert!(tokio::time::timeout(day, &mut waiting).await.is_err());
        calls.send_replace(0);
        let almost = IDLE - Duration::from_secs(1);
        assert!(tokio::time::timeout(almost, &mut waiting).await.is_err());
        // Another call begins the count anew.
        calls.send_replace(1);
        calls.send_replace(0);
        assert!(tokio::time::timeout(almost, &mut waiting).await.is_err());
        waiting.await;
        let took = began.elapsed();
        assert_eq!(took.as_secs(), (day + almost + IDLE).as_secs());
    }

    #[test]
    fn one_user_cannot_take_the_places_of_the_others() {
        let places = Places::default();
        let mut held: Vec<Place> = std::iter::from_fn(|| places.take(1000)).collect();
        assert_eq!(held.len(), MAX_PER_USER);
        let other = places.take(1001);
        assert!(other.is_some());
        held.pop();
        assert!(places.take(1000).is_some(), "a place that was given back");
        drop((held, other));
        let all: Vec<Place> = (0..).map_while(|uid| places.take(uid)).collect();
        assert_eq!(all.len(), MAX_CONNECTIONS);
        drop(all);
        assert!(
            places.0.lock().unwrap().is_empty(),
            "nothing is left behind"
        );
    }
}
