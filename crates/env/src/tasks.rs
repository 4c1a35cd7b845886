//! Owners of tasks.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Env;

/// An aborted task ends at its next poll; more than this it cannot need unless it blocks its thread.
const ABORT_WAIT: Duration = Duration::from_secs(1);

/// An owner of tasks: cancels them, waits for them, and aborts those that do not end.
///
/// Clones are the same owner. When the last clone is dropped, its tasks are cancelled and aborted.
#[derive(Clone, Debug)]
pub struct Tasks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    env: Env,
    token: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Running>,
    /// Keeps the owner above alive; what is spawned here counts as its task too.
    parent: Option<Tasks>,
}

/// The abort handles of tasks that have not ended. `None` while a task is being spawned.
#[derive(Debug, Default)]
struct Running {
    next: AtomicU64,
    handles: Mutex<BTreeMap<u64, Option<AbortHandle>>>,
}

impl Running {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Option<AbortHandle>>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn register(self: &Arc<Self>) -> Registration {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().insert(id, None);
        Registration {
            running: self.clone(),
            id,
        }
    }

    fn started(&self, id: u64, handle: AbortHandle) {
        // No entry: the task has ended already.
        if let Some(slot) = self.lock().get_mut(&id) {
            *slot = Some(handle);
        }
    }

    fn abort_all(&self) {
        // Copied first: dropping a future may end other registrations, which take the lock.
        let handles: Vec<_> = self.lock().values().flatten().cloned().collect();
        for handle in handles {
            handle.abort();
        }
    }
}

/// Lives inside a task and strikes it off when the task ends, however it ends.
struct Registration {
    running: Arc<Running>,
    id: u64,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let removed = self.running.lock().remove(&self.id);
        drop(removed);
    }
}

impl Tasks {
    /// A new owner.
    #[must_use]
    pub fn new(env: &Env) -> Self {
        Self::with_parent(env.clone(), CancellationToken::new(), None)
    }

    /// An owner below this one: cancelled and waited for with it, or alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self::with_parent(
            self.inner.env.clone(),
            self.inner.token.child_token(),
            Some(self.clone()),
        )
    }

    fn with_parent(env: Env, token: CancellationToken, parent: Option<Self>) -> Self {
        let (tracker, running) = (TaskTracker::new(), Arc::default());
        Self {
            inner: Arc::new(Inner {
                env,
                token,
                tracker,
                running,
                parent,
            }),
        }
    }

    /// The environment that the tasks run in.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.inner.env
    }

    /// Cancelled when the owner (or one above it) shuts down. Tasks end by themselves on it.
    #[must_use]
    pub fn token(&self) -> CancellationToken {
        self.inner.token.clone()
    }

    /// How many tasks run now, those of owners below included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.tracker.len()
    }

    /// Whether no task runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.tracker.is_empty()
    }

    /// Runs a future as a task of this owner.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        // Owners above are few and mostly none: an empty `Vec` costs nothing.
        let (mut ids, mut marks) = (Vec::new(), Vec::new());
        for owner in self.above() {
            let registration = owner.running.register();
            ids.push((owner, registration.id));
            marks.push((owner.tracker.token(), registration));
        }
        let (tracked, registration) = (self.inner.tracker.token(), self.inner.running.register());
        let id = registration.id;
        let task = self.inner.env.spawn(async move {
            let _marks = (tracked, registration, marks);
            future.await
        });
        self.inner.running.started(id, task.abort_handle());
        for (owner, id) in ids {
            owner.running.started(id, task.abort_handle());
        }
        task
    }

    fn above(&self) -> impl Iterator<Item = &Inner> {
        std::iter::successors(Some(&*self.inner), |inner| {
            inner.parent.as_ref().map(|tasks| &*tasks.inner)
        })
        .skip(1)
    }

    /// Cancels the token, waits up to `grace` for the tasks to end, and aborts the rest. True when all
    /// ended by themselves.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        self.inner.token.cancel();
        self.inner.tracker.close();
        if timeout(grace, self.inner.tracker.wait()).await.is_ok() {
            return true;
        }
        self.inner.running.abort_all();
        let _ = timeout(ABORT_WAIT, self.inner.tracker.wait()).await;
        false
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.token.cancel();
        self.running.abort_all();
    }
}
