//! When a change is told. Config and trust at once; where instances come and go, many changes are told as one, so that
//! a thousand sidecars that join do not make a thousand pushes to a thousand sidecars.

use std::time::Duration;

use tokio::time::Instant;

/// What a push may take of the time, for each sidecar that it goes to: about twice what it costs.
const SHARE: Duration = Duration::from_micros(200);
/// No change waits longer.
const LONGEST: Duration = Duration::from_millis(500);

/// The pushes so far. Pure.
#[derive(Debug, Default)]
pub(super) struct Pace {
    last: Option<Instant>,
    due: Option<Instant>,
}

impl Pace {
    /// Something changed, for so many sessions. True if it is to be told now, else [`due`](Self::due) says when.
    pub(super) fn changed(&mut self, now: Instant, urgent: bool, sessions: usize) -> bool {
        let gap = SHARE
            .saturating_mul(u32::try_from(sessions).unwrap_or(u32::MAX))
            .min(LONGEST);
        let earliest = self.last.map_or(now, |last| last + gap);
        if urgent || earliest <= now {
            self.told(now);
            return true;
        }
        self.due.get_or_insert(earliest);
        false
    }

    /// When what has changed is to be told; `None` if all is.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// All is told.
    pub(super) fn told(&mut self, now: Instant) {
        self.last = Some(now);
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_told_at_once_and_those_behind_it_together() {
        let (mut pace, start) = (Pace::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        assert!(pace.changed(at(0), false, 1_000));
        assert!(!pace.changed(at(1), false, 1_000));
        assert!(!pace.changed(at(150), false, 1_000));
        assert_eq!(pace.due(), Some(at(200)));
        pace.told(at(200));
        assert_eq!(pace.due(), None);
        assert!(!pace.changed(at(201), false, 1_000));
        assert!(pace.changed(at(400), false, 1_000), "long after the last");
    }

    #[test]
    fn what_is_urgent_takes_the_rest_along() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.changed(now, false, 1_000));
        assert!(!pace.changed(now, false, 1_000));
        assert!(pace.changed(now, true, 1_000));
        assert_eq!(pace.due(), None);
    }

    #[test]
    fn few_sidecars_wait_for_nothing_that_counts_and_many_for_half_a_second() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.changed(now, false, 5));
        assert!(!pace.changed(now, false, 5));
        assert_eq!(pace.due(), Some(now + Duration::from_millis(1)));
        pace.told(now);
        assert!(!pace.changed(now, false, 1_000_000));
        assert_eq!(pace.due(), Some(now + LONGEST));
    }
}
