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

/// The level of a link's thread, low among the real-time priorities: before all programs, after what the
/// kernel itself runs there.
pub const LINK_LEVEL: i32 = 10;

/// Asks for real-time priority of that level and for exact timers for the calling thread, and says what it got.
pub fn raise_priority(level: i32) -> Priority {
    // Ordinary threads' timers may be put off by 50 µs to save power; real-time ones are exact anyway.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    if set_fifo(level) {
        Priority::RealTime
    } else {
        Priority::Ordinary
    }
}

#[allow(
    unsafe_code,
    reason = "no safe wrapper of sched_setscheduler is in the tree"
)]
fn set_fifo(level: i32) -> bool {
    let parameters = libc::sched_param {
        sched_priority: level,
    };
    // Children and threads made from here start ordinary.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: pid 0 means the calling thread, and the kernel only reads `parameters`, which lives on this
    // frame for the whole call.
    unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) == 0 }
}
