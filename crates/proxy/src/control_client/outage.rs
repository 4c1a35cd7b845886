//! When the loss of the control node is said again: an outage of a night is some lines, not one a second.

use std::time::Duration;

/// The same reason is repeated this rarely.
const AGAIN: Duration = Duration::from_secs(60);

/// The attempts since the link was lost.
#[derive(Debug, Default)]
pub(crate) struct Outage {
    said: Option<(String, Duration)>,
    attempts: u64,
}

impl Outage {
    /// One more attempt failed, at `now` on the process's clock. Gives the number of attempts so far if this is to be
    /// said: the first, one that failed for another reason, and one now and then.
    pub(crate) fn failed(&mut self, reason: &str, now: Duration) -> Option<u64> {
        self.attempts += 1;
        let said = matches!(&self.said, Some((last, at)) if last == reason && now.saturating_sub(*at) < AGAIN);
        if said {
            return None;
        }
        self.said = Some((reason.to_owned(), now));
        Some(self.attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_a_new_reason_and_one_a_minute_are_said() {
        let mut outage = Outage::default();
        let at = Duration::from_secs;
        assert_eq!(outage.failed("no answer", at(1)), Some(1));
        assert_eq!(outage.failed("no answer", at(2)), None);
        assert_eq!(outage.failed("contested", at(3)), Some(3));
        assert_eq!(outage.failed("contested", at(62)), None);
        assert_eq!(outage.failed("contested", at(63)), Some(5));
        assert_eq!(outage.failed("no answer", at(64)), Some(6));
    }
}
