//! The order in which woken tasks run: drawn from the seed, whoever woke them in whatever order.
//!
//! tokio's `watch` channel wakes its receivers in an order that it draws from a generator that no seed reaches (it
//! hashes a counter of the whole program). So a wake only enters a task here; one task of the world wakes all that
//! have been entered, in an order of the seed. Runs repeat, and other seeds try other orders.

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Who is to be woken. One of each world.
#[derive(Default)]
pub(crate) struct Wakes {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    seed: u64,
    /// Tasks so far: the next one's number.
    tasks: u64,
    rounds: u64,
    entered: Vec<Arc<Task>>,
    /// The task that wakes them.
    waker: Option<Waker>,
}

struct Task {
    number: u64,
    inner: Waker,
    entered: AtomicBool,
    wakes: Arc<Wakes>,
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.entered.swap(true, Ordering::Relaxed) {
            return;
        }
        let waker = {
            let mut state = self.wakes.lock();
            state.entered.push(self.clone());
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Wakes {
    pub(crate) fn new(seed: u64) -> Arc<Self> {
        let state = State {
            seed,
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What wakes a task, made of the runtime's waker.
    pub(crate) fn of(self: &Arc<Self>, inner: &Waker) -> Waker {
        let number = {
            let mut state = self.lock();
            state.tasks += 1;
            state.tasks
        };
        Waker::from(Arc::new(Task {
            number,
            inner: inner.clone(),
            entered: AtomicBool::new(false),
            wakes: self.clone(),
        }))
    }

    /// Wakes whoever is entered, until the world ends.
    pub(crate) async fn serve(self: Arc<Self>) {
        poll_fn(|cx| self.round(cx)).await
    }

    fn round(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut entered = {
            let mut state = self.lock();
            state.waker = Some(cx.waker().clone());
            state.rounds += 1;
            let salt = state.seed ^ state.rounds.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut entered = std::mem::take(&mut state.entered);
            entered.sort_by_key(|task| mix(task.number ^ salt));
            entered
        };
        for task in entered.drain(..) {
            task.entered.store(false, Ordering::Relaxed);
            task.inner.wake_by_ref();
        }
        Poll::Pending
    }
}

/// SplitMix64's finaliser: different numbers stay different, and lie in any order.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Note(u64, Arc<Mutex<Vec<u64>>>);

    impl Wake for Note {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    /// The order in which five tasks run that were woken in the given order.
    fn order(seed: u64, woken: &[usize]) -> Vec<u64> {
        let wakes = Wakes::new(seed);
        let ran = Arc::new(Mutex::new(Vec::new()));
        let tasks: Vec<Waker> = (0..5)
            .map(|n| wakes.of(&Waker::from(Arc::new(Note(n, ran.clone())))))
            .collect();
        woken.iter().for_each(|n| tasks[*n].wake_by_ref());
        assert!(ran.lock().unwrap().is_empty(), "a wake only enters");
        assert!(
            wakes
                .round(&mut Context::from_waker(Waker::noop()))
                .is_pending()
        );
        std::mem::take(&mut *ran.lock().unwrap())
    }

    #[test]
    fn the_order_is_the_seeds_and_not_that_of_the_wakes() {
        let one = order(1, &[0, 1, 2, 3, 4]);
        assert_eq!(one, order(1, &[4, 2, 2, 0, 1, 3]));
        assert_eq!(one.len(), 5);
        assert!((2..20).any(|seed| order(seed, &[0, 1, 2, 3, 4]) != one));
    }
}
