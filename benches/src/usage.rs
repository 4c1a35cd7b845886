//! What processes have used: CPU time and memory, from `/proc`.

use std::fs;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a set of processes has used so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system time, µs.
    pub(crate) cpu_us: u64,
    /// Resident memory, bytes.
    pub(crate) rss: u64,
    /// Resident memory of the process that has most, bytes.
    #[serde(default)]
    pub(crate) rss_largest: u64,
}

impl Usage {
    /// The sum over these processes now. A process that is gone counts nothing.
    pub(crate) fn of(pids: &[u32]) -> Self {
        let mut sum = Self::default();
        for pid in pids {
            let cpu = cpu(*pid).unwrap_or_default();
            sum.cpu_us += u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
            let rss = rss(*pid).unwrap_or_default();
            sum.rss += rss;
            sum.rss_largest = sum.rss_largest.max(rss);
        }
        sum
    }

    /// CPU since `before`, memory as it is now.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            cpu_us: self.cpu_us.saturating_sub(before.cpu_us),
            ..self
        }
    }
}

/// CPU time of all threads of a process that live. The scheduler's own figure has nanoseconds, where
/// `stat` has ticks of 10 ms.
fn cpu(pid: u32) -> Option<Duration> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).ok();
        sum += text.and_then(|text| first_number(&text)).unwrap_or(0);
    }
    (sum > 0).then(|| Duration::from_nanos(sum))
}

fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

fn rss(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    first_number(line).map(|kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_used_something() {
        let usage = Usage::of(&[std::process::id()]);
        assert!(usage.rss > 0, "resident memory of the test itself");
        assert!(usage.cpu_us > 0, "CPU time of the test itself");
    }

    #[test]
    fn a_process_that_is_gone_counts_nothing() {
        assert_eq!(Usage::of(&[u32::MAX]), Usage::default());
    }
}
