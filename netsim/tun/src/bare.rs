//! The machine without a link: how late a thread wakes that does nothing but sleep.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::clock::Clock;
use crate::error::Error;
use crate::lateness::{Lateness, LatenessReport};
use crate::priority::{LINK_LEVEL, raise_priority};

/// A thread of the same priority as a link's, that sleeps from deadline to deadline and records how late it
/// wakes. Run it beside a measurement: what it shows is the machine's doing and nobody else's.
#[derive(Debug)]
pub struct BareTimer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Lateness>>,
}

/// Often enough to see each gap of 10 ms, seldom enough to cost nothing.
const PERIOD: Duration = Duration::from_millis(2);

impl BareTimer {
    /// Starts to measure.
    ///
    /// # Errors
    /// [`Error::System`] if no thread can be had.
    pub fn start() -> Result<Self, Error> {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("bare-timer".into())
            .spawn(move || measure(&seen))
            .map_err(Error::system("start the thread of the bare timer"))?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }

    /// Ends the measurement.
    #[must_use]
    pub fn stop(mut self) -> LatenessReport {
        self.join().unwrap_or_default().report()
    }

    fn join(&mut self) -> Option<Lateness> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok())
    }
}

impl Drop for BareTimer {
    fn drop(&mut self) {
        self.join();
    }
}

fn measure(stop: &AtomicBool) -> Lateness {
    raise_priority(LINK_LEVEL);
    let clock = Clock::start();
    let mut lateness = Lateness::new();
    let mut at = PERIOD;
    while !stop.load(Ordering::Relaxed) {
        clock.sleep_bare(at);
        let now = clock.now();
        lateness.record(now.saturating_sub(at));
        // Deadlines that passed while the CPU was away count once, not each.
        while at <= now {
            at += PERIOD;
        }
    }
    lateness
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures_until_it_is_stopped() {
        let clock = Clock::start();
        let timer = BareTimer::start().unwrap();
        clock.sleep_until(Duration::from_millis(100));
        let report = timer.stop();
        let periods = clock.now().as_nanos() / PERIOD.as_nanos();
        let count = u128::from(report.count);
        assert!((1..=periods).contains(&count), "{periods}: {report:?}");
    }
}
