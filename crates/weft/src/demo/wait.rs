//! Waiting for what is observed from outside: asked again and again until a deadline.

use std::time::Duration;

use tokio::time::Instant;

/// How often an observation is repeated.
const EVERY: Duration = Duration::from_millis(5);

/// A moment by which something must have been seen.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline {
    at: Instant,
    allowed: Duration,
}

impl Deadline {
    /// From now.
    pub(super) fn after(allowed: Duration) -> Self {
        Self {
            at: Instant::now() + allowed,
            allowed,
        }
    }
}

/// Repeats an observation until it sees something. An error of the observation ends the wait.
pub(super) async fn eventually<T>(
    deadline: Deadline,
    what: &str,
    mut observe: impl AsyncFnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    loop {
        if let Some(seen) = observe().await? {
            return Ok(seen);
        }
        if Instant::now() >= deadline.at {
            return Err(format!("waited {:?} for {what}", deadline.allowed));
        }
        tokio::time::sleep(EVERY).await;
    }
}
