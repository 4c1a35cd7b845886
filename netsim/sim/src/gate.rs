//! The gate that every task of a process passes on each poll.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use tokio::task::AbortHandle;
use weft_env::TaskGate;
use weft_netsim_heap::Account;

use crate::wakes::Wakes;

thread_local! {
    static CURRENT: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
}

/// The process whose task was polled last on this thread, as `node/process`: in the middle of a poll, whose
/// task this is. For those who collect what processes say (a `tracing` subscriber).
#[must_use]
pub fn current_process() -> Option<Arc<str>> {
    CURRENT.with(|current| current.borrow().clone())
}

/// One life of a process.
pub(crate) struct Gate {
    name: Arc<str>,
    /// Polls of all tasks in the world: whether anything has run since the last look.
    polls: Arc<AtomicU64>,
    wakes: Arc<Wakes>,
    /// What it holds in memory.
    account: Account,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    fenced: bool,
    paused: bool,
    waiting: Vec<Waker>,
    /// With the place in the code that spawned it.
    tasks: Vec<(AbortHandle, &'static Location<'static>)>,
    spawned: u64,
}

/// Handles of ended tasks are thrown away when there are this many.
const SWEEP: usize = 64;

impl Gate {
    pub(crate) fn new(name: Arc<str>, polls: Arc<AtomicU64>, wakes: Arc<Wakes>) -> Self {
        Self {
            name,
            polls,
            wakes,
            account: Account::open(),
            state: Mutex::default(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on sockets and disk refuse this life, and no task of it runs.
    pub(crate) fn fence(&self) {
        self.lock().fenced = true;
    }

    pub(crate) fn is_fenced(&self) -> bool {
        self.lock().fenced
    }

    pub(crate) fn abort_all(&self) {
        // Copied first: an aborted task may drop what spawns or ends others.
        let tasks = std::mem::take(&mut self.lock().tasks);
        for (task, _) in &tasks {
            task.abort();
        }
        self.lock().tasks.extend(tasks);
    }

    /// Tasks that have not ended.
    pub(crate) fn living(&self) -> usize {
        let mut state = self.lock();
        state.tasks.retain(|(task, _)| !task.is_finished());
        state.tasks.len()
    }

    /// Tasks that have not ended, by the place in the code that spawned them.
    pub(crate) fn living_by_place(&self) -> BTreeMap<&'static Location<'static>, usize> {
        // There are few places: comparing where they lie in memory is cheaper than comparing paths. The compiler may
        // have one place at several addresses; the map makes them one again.
        let mut counts: Vec<(&'static Location<'static>, usize)> = Vec::new();
        for (task, at) in &self.lock().tasks {
            if task.is_finished() {
                continue;
            }
            match counts
                .iter_mut()
                .find(|(known, _)| std::ptr::eq(*known, *at))
            {
                Some((_, count)) => *count += 1,
                None => counts.push((at, 1)),
            }
        }
        let mut map = BTreeMap::new();
        for (at, count) in counts {
            *map.entry(at).or_default() += count;
        }
        map
    }

    /// Bytes that it holds in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.account.bytes()
    }

    pub(crate) fn pause(&self) {
        self.lock().paused = true;
    }

    pub(crate) fn resume(&self) {
        let waiting = {
            let mut state = self.lock();
            state.paused = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.lock().paused
    }
}

impl TaskGate for Gate {
    fn may_run(&self, cx: &mut Context<'_>) -> bool {
        self.polls.fetch_add(1, Ordering::Relaxed);
        self.account.enter();
        {
            let mut state = self.lock();
            if state.fenced {
                return false;
            }
            if state.paused {
                state.waiting.push(cx.waker().clone());
                return false;
            }
        }
        CURRENT.with(|current| {
            let mut current = current.borrow_mut();
            if current
                .as_ref()
                .is_none_or(|known| !Arc::ptr_eq(known, &self.name))
            {
                *current = Some(self.name.clone());
            }
        });
        true
    }

    fn waker(&self, task: &Waker) -> Waker {
        self.wakes.of(task)
    }

    fn spawned(&self, task: AbortHandle, at: &'static Location<'static>) {
        let fenced = {
            let mut state = self.lock();
            state.spawned += 1;
            if state.tasks.len() >= SWEEP && state.tasks.len() == state.tasks.capacity() {
                state.tasks.retain(|(task, _)| !task.is_finished());
            }
            state.tasks.push((task.clone(), at));
            state.fenced
        };
        if fenced {
            task.abort();
        }
    }
}
