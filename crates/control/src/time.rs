//! Wall-clock times in the units of the wire.

use std::time::{SystemTime, UNIX_EPOCH};

/// Whole seconds since 1970; a clock before that counts as 1970.
pub(crate) fn unix_s(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// From `now` to `end`; below zero if it is over.
pub(crate) fn seconds_left(end: SystemTime, now: SystemTime) -> i64 {
    let signed = |time| i64::try_from(unix_s(time)).unwrap_or(i64::MAX);
    signed(end) - signed(now)
}
