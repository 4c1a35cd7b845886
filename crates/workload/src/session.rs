//! One connection: its caller, and the streams that follow the identity for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use weft_certs::{Identity, IdentitySource};
use weft_env::{Env, Rng, Tasks};

use crate::entry::Entry;
use crate::jwt::Tokens;
use crate::offer::{self, Withheld};
use crate::peer::Peer;
use crate::server::Workload;

/// A push reaches this many streams per second and no more: each makes its workload build TLS anew.
const PUSHES_PER_SECOND: u32 = 100;
/// The last stream does not wait longer than this for what is new.
const LONGEST_SPREAD: Duration = Duration::from_secs(1);

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) env: Env,
    pub(crate) identity: Arc<IdentitySource>,
    pub(crate) entries: Arc<[Entry]>,
    pub(crate) tokens: Tokens,
    rng: Mutex<Rng>,
    following: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(env: &Env, workload: Workload) -> Arc<Self> {
        Arc::new(Self {
            env: env.clone(),
            identity: workload.identity,
            entries: workload.allow.into(),
            tokens: Tokens::new(workload.tokens),
            rng: Mutex::new(env.rng("workload-push")),
            following: AtomicUsize::new(0),
        })
    }

    /// How long this stream waits before it tells its workload of a change.
    fn spread(&self) -> Duration {
        let draw = self
            .rng
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next_u64();
        spread(self.following.load(Ordering::Relaxed), draw)
    }
}

/// A random part of the time that pushing to so many streams may take. One stream alone never waits.
fn spread(streams: usize, draw: u64) -> Duration {
    let others = u32::try_from(streams.saturating_sub(1)).unwrap_or(u32::MAX);
    let window = (Duration::from_secs(1) / PUSHES_PER_SECOND)
        .saturating_mul(others)
        .min(LONGEST_SPREAD);
    // The upper half of the draw as a fraction of 2^32.
    let part = u32::try_from(draw >> 32).unwrap_or(u32::MAX);
    window.mul_f64(f64::from(part) / f64::from(u32::MAX))
}

/// One connection.
pub(crate) struct Session {
    pub(crate) shared: Arc<Shared>,
    pub(crate) peer: Arc<Peer>,
    /// Owner of its streams.
    pub(crate) tasks: Tasks,
    /// How many calls are under way.
    pub(crate) calls: watch::Sender<usize>,
}

/// A call that is under way: what counts it.
pub(crate) struct Call(Arc<Session>);

impl Drop for Call {
    fn drop(&mut self) {
        self.0.calls.send_modify(|calls| *calls -= 1);
    }
}

/// Counts a stream that follows the identity.
pub(crate) struct Following(Arc<Shared>);

impl Drop for Following {
    fn drop(&mut self) {
        self.0.following.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Session {
    /// Notes that a call is under way.
    pub(crate) fn begin(self: &Arc<Self>) -> Call {
        self.calls.send_modify(|calls| *calls += 1);
        Call(Arc::clone(self))
    }

    /// Notes that a stream follows the identity.
    pub(crate) fn following(&self) -> Following {
        self.shared.following.fetch_add(1, Ordering::Relaxed);
        Following(Arc::clone(&self.shared))
    }

    /// Waits for this stream's turn to tell of a change.
    pub(crate) async fn take_turns(&self) {
        sleep(self.shared.spread()).await;
    }

    /// Whether the caller may have the identity now.
    pub(crate) async fn permit(&self) -> Result<(), Status> {
        let shared = &self.shared;
        if !self.peer.may(&shared.env, &shared.entries).await {
            tracing::debug!(
                uid = self.peer.uid(),
                pid = self.peer.pid(),
                "a process without a registration entry asked for an identity"
            );
            return Err(Status::permission_denied(
                "no identity issued: no registration entry of this sidecar (--workload-allow) fits this process",
            ));
        }
        Ok(())
    }

    /// The identity, if the caller may have it now and it is good.
    pub(crate) async fn admit(&self) -> Result<Arc<Identity>, Status> {
        self.permit().await?;
        let shared = &self.shared;
        let identity = shared.identity.current();
        match offer::usable(&identity, shared.env.wall()) {
            Ok(()) => Ok(identity),
            Err(withheld @ Withheld::Revoked) => {
                Err(Status::permission_denied(withheld.to_string()))
            }
            Err(withheld @ Withheld::Unusable(_)) => Err(Status::unavailable(withheld.to_string())),
        }
    }

    /// A stream of whole states, the first at once, then one for each change of `version`. It ends when the caller
    /// may not have it any more.
    pub(crate) async fn follow<T, V>(
        self: &Arc<Self>,
        version: fn(&Identity) -> V,
        make: fn(&Identity) -> T,
    ) -> Result<ReceiverStream<Result<T, Status>>, Status>
    where
        T: Send + 'static,
        V: PartialEq + Send + 'static,
    {
        let mut changes = self.shared.identity.subscribe();
        changes.mark_unchanged();
        let first = self.admit().await?;
        // One message waits for the caller at most; the next is made when that one is gone.
        let (messages, stream) = mpsc::channel(1);
        let (session, stop) = (Arc::clone(self), self.tasks.token());
        drop(self.tasks.spawn(async move {
            let _call = session.begin();
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    let _ = messages.try_send(Err(Status::unavailable("the sidecar is stopping")));
                }
                () = messages.closed() => {}
                () = feed(&session, changes, first, version, make, &messages) => {}
            }
        }));
        Ok(ReceiverStream::new(stream))
    }
}

async fn feed<T, V: PartialEq>(
    session: &Session,
    mut changes: watch::Receiver<u64>,
    mut identity: Arc<Identity>,
    version: fn(&Identity) -> V,
    make: fn(&Identity) -> T,
    messages: &mpsc::Sender<Result<T, Status>>,
) {
    let _following = session.following();
    let mut told = None;
    loop {
        let now = version(&identity);
        if told.as_ref() != Some(&now) {
            if messages.send(Ok(make(&identity))).await.is_err() {
                return;
            }
            told = Some(now);
        }
        if changes.changed().await.is_err() {
            return;
        }
        session.take_turns().await;
        // Room first: what is sent is then the newest there is.
        let Ok(room) = messages.reserve().await else {
            return;
        };
        changes.mark_unchanged();
        match session.admit().await {
            Ok(next) => identity = next,
            Err(status) => return room.send(Err(status)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stream_is_told_at_once_and_many_over_a_second_at_most() {
        let ms = |streams, draw| spread(streams, draw).as_millis();
        assert_eq!(ms(0, u64::MAX), 0);
        assert_eq!(ms(1, u64::MAX), 0);
        assert_eq!(ms(11, u64::MAX), 100);
        assert_eq!(ms(11, u64::MAX / 2), 50);
        assert_eq!(ms(11, 0), 0);
        assert_eq!(ms(usize::MAX, u64::MAX), 1000);
    }
}
