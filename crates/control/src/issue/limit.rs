//! How many things are done per second. Pure.

use std::time::Duration;

use tokio::time::Instant;

/// Certificates per second, and at once (ca-ops §10.9), unless the settings say otherwise.
pub(crate) const CERTIFICATES_PER_S: u32 = 50;

/// A bucket of tokens: full at the start, refilled evenly. It holds what comes in one second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    rate: u32,
    /// When the bucket would have been empty, counted back from its content.
    empty_at: Instant,
}

impl RateLimit {
    /// A full bucket.
    pub(crate) fn new(rate: u32, now: Instant) -> Self {
        Self {
            rate: rate.max(1),
            empty_at: now.checked_sub(Duration::from_secs(1)).unwrap_or(now),
        }
    }

    /// How many per second.
    pub(crate) fn rate(&self) -> u32 {
        self.rate
    }

    /// Takes one.
    ///
    /// # Errors
    /// How long until there is one again.
    pub(crate) fn take(&mut self, now: Instant) -> Result<(), Duration> {
        let each = Duration::from_secs(1) / self.rate;
        let full = now.checked_sub(Duration::from_secs(1)).unwrap_or(now);
        let after = self.empty_at.max(full) + each;
        if after > now {
            return Err(after - now);
        }
        self.empty_at = after;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods)]

    use super::*;

    #[test]
    fn fifty_at_once_and_fifty_per_second() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut limit = RateLimit::new(CERTIFICATES_PER_S, start);
        for _ in 0..CERTIFICATES_PER_S {
            assert_eq!(limit.take(start), Ok(()));
        }
        assert_eq!(limit.take(start), Err(Duration::from_millis(20)));
        let soon = start + Duration::from_millis(20);
        assert_eq!(limit.take(soon), Ok(()));
        assert!(limit.take(soon).is_err());
        let later = start + Duration::from_secs(60);
        let passed = (0..200).filter(|_| limit.take(later).is_ok()).count();
        assert_eq!(passed, 50, "rest does not add up");
    }
}
