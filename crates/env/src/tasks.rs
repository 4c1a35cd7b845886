//! Owners of tasks.

use std::any::Any;
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Span;

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

/// An essential task that ended though nobody told it to: what it served is served no more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{task} has stopped working ({why})")]
pub struct Broken {
    /// What the task did, for people.
    pub task: &'static str,
    /// The message of its panic, or that it ended.
    pub why: String,
}

#[derive(Debug)]
struct Inner {
    env: Env,
    /// One for an owner and all below it: the first essential task that ended unasked.
    broken: Arc<watch::Sender<Option<Broken>>>,
    token: CancellationToken,
    tracker: TaskTracker,
    running: Arc<Running>,
    /// What the tasks log in, if that is a span.
    span: Option<Arc<Span>>,
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

pin_project! {
    /// A future with what tells that it runs. An `async` block would have room for the future twice over, as what it was
    /// given and as what it waits for, and copy it from one to the other in every task.
    struct Marked<F, M> {
        #[pin]
        future: F,
        span: Option<Arc<Span>>,
        marks: Option<M>,
    }
}

impl<F: Future, M> Future for Marked<F, M> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let _within = this.span.as_deref().map(Span::enter);
        let output = ready!(this.future.poll(cx));
        drop(this.marks.take());
        Poll::Ready(output)
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
        Self::within(env, Span::none())
    }

    /// A new owner whose tasks, those of owners below included, log within a span.
    #[must_use]
    pub fn within(env: &Env, span: Span) -> Self {
        let broken = Arc::new(watch::Sender::new(None));
        let span = (!span.is_disabled()).then(|| Arc::new(span));
        Self::with_parent(env.clone(), CancellationToken::new(), broken, span, None)
    }

    /// An owner below this one: cancelled and waited for with it, or alone.
    #[must_use]
    pub fn child(&self) -> Self {
        Self::with_parent(
            self.inner.env.clone(),
            self.inner.token.child_token(),
            self.inner.broken.clone(),
            self.inner.span.clone(),
            Some(self.clone()),
        )
    }

    fn with_parent(
        env: Env,
        token: CancellationToken,
        broken: Arc<watch::Sender<Option<Broken>>>,
        span: Option<Arc<Span>>,
        parent: Option<Self>,
    ) -> Self {
        let (tracker, running) = (TaskTracker::new(), Arc::default());
        Self {
            inner: Arc::new(Inner {
                env,
                broken,
                token,
                tracker,
                running,
                span,
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
        let task = self.inner.env.spawn(Marked {
            future,
            span: self.inner.span.clone(),
            marks: Some((tracked, registration, marks)),
        });
        self.inner.running.started(id, task.abort_handle());
        for (owner, id) in ids {
            owner.running.started(id, task.abort_handle());
        }
        task
    }

    /// Runs a future that the process is of no use without, such as a listener's accept loop: if it panics, or
    /// ends before it is told to, [`Tasks::broken`] tells. `task` names it, for people.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn_essential<F>(&self, task: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (broken, token) = (self.inner.broken.clone(), self.inner.token.clone());
        let report = move |why: String| {
            broken.send_if_modified(|first| {
                let news = first.is_none();
                first.get_or_insert(Broken { task, why });
                news
            });
        };
        self.spawn(async move {
            let mut future = pin!(future);
            let outcome = poll_fn(|cx| {
                // Nothing looks at the future after a panic, so it may be in any state.
                match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                    Ok(Poll::Pending) => Poll::Pending,
                    Ok(Poll::Ready(())) => Poll::Ready(Ok(())),
                    Err(panic) => Poll::Ready(Err(panic)),
                }
            })
            .await;
            match outcome {
                Ok(()) if token.is_cancelled() => {}
                Ok(()) => report("it ended too early".to_owned()),
                Err(panic) => {
                    report(message(&*panic));
                    resume_unwind(panic);
                }
            }
        })
    }

    /// Waits until an essential task of this owner, of one above or of one below it ends unasked. The owner of all
    /// gives up then: a process that lives on half-dead is restarted by nobody.
    pub async fn broken(&self) -> Broken {
        let mut broken = self.inner.broken.subscribe();
        let first = broken.wait_for(Option::is_some).await;
        let first = first.ok().and_then(|first| first.clone());
        match first {
            Some(first) => first,
            // It fails only when there is no sender any more, and this holds one.
            None => std::future::pending().await,
        }
    }

    fn above(&self) -> impl Iterator<Item = &Inner> {
        std::iter::successors(Some(&*self.inner), |inner| {
            inner.parent.as_ref().map(|tasks| &*tasks.inner)
        })
        .skip(1)
    }

    /// Waits until no task runs. Of use once nothing spawns any more but the tasks themselves.
    pub async fn ended(&self) {
        self.inner.tracker.close();
        self.inner.tracker.wait().await;
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

/// What a panic said.
fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("panic: {}", text.unwrap_or("without words"))
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.token.cancel();
        self.running.abort_all();
    }
}
