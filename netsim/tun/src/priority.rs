//! Real-time priority, where the kernel grants it.

use std::num::NonZeroU64;

use serde::Serialize;

/// How the kernel schedules a thread that keeps deadlines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Priority {
    /// `SCHED_FIFO`: before every ordinary thread.
    RealTime,
    /// Like every other thread; lateness will be larger on a busy machine.
    Ordinary,
}

/// Low among the real-time priorities: before all programs, after what the kernel itself runs there.
const FIFO_PRIORITY: i32 = 10;

/// Asks for real-time priority and exact timers for the calling thread, and says what it got.
pub fn raise_priority() -> Priority {
    // Ordinary threads' timers may be put off by 50 µs to save power; real-time ones are exact anyway.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    if set_fifo() {
        Priority::RealTime
    } else {
        Priority::Ordinary
    }
}

#[allow(
    unsafe_code,
    reason = "no safe wrapper of sched_setscheduler is in the tree"
)]
fn set_fifo() -> bool {
    let parameters = libc::sched_param {
        sched_priority: FIFO_PRIORITY,
    };
    // Children and threads made from here start ordinary.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: pid 0 means the calling thread, and the kernel only reads `parameters`, which lives on this
    // frame for the whole call.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
}
