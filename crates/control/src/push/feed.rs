//! Follows the store, so that every session can ask for what it lacks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use weft_wire::FrameError;

use super::pace::Pace;
use super::state::{PUSHED, PushState, is_about_places, is_pushed};
use crate::store::{Range, Revision, Store, StoreError, WatchEnd};

/// Revisions whose arrival is remembered, to time the receipts.
const MAX_ARRIVALS: usize = 1024;
/// Pause before the store is read again after it failed.
const RETRY: Duration = Duration::from_millis(500);

/// The newest state of everything that is pushed. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Feed {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    latest: watch::Sender<Revision>,
}

async fn until(due: Option<Instant>) {
    match due {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Everything that is pushed, and the revision to watch from. The three prefixes are read one after the other: what
/// changes in between is seen by the watch again, and comes to the same.
async fn pushed(store: &dyn Store) -> Result<Range, StoreError> {
    let mut all: Option<Range> = None;
    for prefix in PUSHED {
        let range = store.range(prefix).await?;
        match &mut all {
            None => all = Some(range),
            Some(all) => all.entries.extend(range.entries),
        }
    }
    all.ok_or_else(|| StoreError::Invalid("nothing is pushed".to_owned()))
}

#[derive(Default)]
struct Inner {
    state: PushState,
    arrivals: VecDeque<(Revision, Instant)>,
}

impl Feed {
    /// Reads the store. [`follow`](Self::follow) keeps it current.
    ///
    /// # Errors
    /// [`StoreError`] if the store cannot be read.
    pub(crate) async fn load(store: &dyn Store) -> Result<Self, StoreError> {
        let range = pushed(store).await?;
        let mut inner = Inner::default();
        inner.state.load(range.revision, &range.entries);
        Ok(Self {
            shared: Arc::new(Shared {
                inner: Mutex::new(inner),
                latest: watch::Sender::new(range.revision),
            }),
        })
    }

    /// Follows the store until `stop`.
    pub(crate) async fn follow(self, store: Arc<dyn Store>, stop: CancellationToken) {
        let mut watch = store.watch("", self.revision());
        let mut pace = Pace::default();
        loop {
            let next = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = until(pace.due()) => {
                    self.tell();
                    pace.told(Instant::now());
                    continue;
                }
                next = watch.next() => next,
            };
            match next {
                Ok(transaction) => {
                    let urgent = transaction
                        .changes
                        .iter()
                        .any(|change| is_pushed(&change.key) && !is_about_places(&change.key));
                    let pushed = self
                        .change(|state| state.apply(transaction.revision, &transaction.changes));
                    let sessions = self.shared.latest.receiver_count();
                    if pushed && pace.changed(Instant::now(), urgent, sessions) {
                        self.tell();
                    }
                    tracing::trace!(revision = transaction.revision, pushed, "store changed");
                }
                Err(WatchEnd::Compacted { from }) => {
                    tracing::info!(from, "the store's history was too short; reading all of it");
                    match pushed(&*store).await {
                        Ok(range) => {
                            self.change(|state| {
                                state.load(range.revision, &range.entries);
                                true
                            });
                            self.tell();
                            pace.told(Instant::now());
                            watch = store.watch("", range.revision);
                        }
                        Err(error) => {
                            tracing::error!(%error, "the store cannot be read");
                            watch = store.watch("", from);
                            sleep(RETRY).await;
                        }
                    }
                }
                Err(WatchEnd::Closed) => return,
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut PushState) -> bool) -> bool {
        let mut inner = self.lock();
        if !change(&mut inner.state) {
            return false;
        }
        let revision = inner.state.revision();
        inner.arrivals.push_back((revision, Instant::now()));
        if inner.arrivals.len() > MAX_ARRIVALS {
            inner.arrivals.pop_front();
        }
        true
    }

    /// Wakes the sessions.
    fn tell(&self) {
        let revision = self.lock().state.revision();
        self.shared.latest.send_replace(revision);
    }

    /// The newest revision that sidecars see.
    pub(crate) fn revision(&self) -> Revision {
        *self.shared.latest.borrow()
    }

    /// When `revision` became visible here; `None` if that is long ago, or before the start.
    pub(crate) fn arrived(&self, revision: Revision) -> Option<Instant> {
        let inner = self.lock();
        let index = inner
            .arrivals
            .partition_point(|(arrived, _)| *arrived < revision);
        // The revision itself may not be a pushed one; then the next one carried it. But if the first
        // remembered one is later, the arrival asked for may be forgotten.
        let (found, at) = inner.arrivals.get(index)?;
        (index > 0 || *found == revision).then_some(*at)
    }

    /// The frame that takes a session from `sent` to the newest revision; `None` if it is there.
    ///
    /// # Errors
    /// [`FrameError`] if it is too large to be sent.
    pub(crate) fn frame_since(
        &self,
        sent: Option<Revision>,
    ) -> Result<Option<(Revision, Bytes)>, FrameError> {
        self.lock().state.frame_since(sent)
    }

    /// Tells of each newer revision.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Revision> {
        self.shared.latest.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A panic in between leaves at worst a stale cache entry, which `load` and `apply` clear first.
        self.shared
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
