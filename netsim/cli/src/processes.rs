//! The processes of a run: those that carry its id in their environment, and those in its namespaces.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use weft_netsim_tun::Clock;

/// Names the run to everything that its command starts, and so to whoever ends it.
pub(crate) const RUN_VARIABLE: &str = "WEFT_NETSIM_RUN";

/// How long processes have to end by themselves after SIGTERM, and the kernel to take them away after SIGKILL.
const GRACE: Duration = Duration::from_millis(500);
const STEP: Duration = Duration::from_millis(10);

/// Ends all processes of the run `id`, the calling one excepted: asks once, then insists.
pub(crate) fn end(id: &str, namespaces: &[String]) {
    let run = Run::new(id, namespaces);
    for signal in [Signal::TERM, Signal::KILL] {
        for process in run.processes() {
            // One that has ended in between has ended.
            let _ = pidfd_send_signal(process, signal);
        }
        let clock = Clock::start();
        while clock.now() < GRACE && !run.processes().is_empty() {
            clock.sleep_until(clock.now() + STEP);
        }
    }
}

struct Run {
    mark: Vec<u8>,
    namespaces: Vec<(u64, u64)>,
}

impl Run {
    fn new(id: &str, namespaces: &[String]) -> Self {
        Self {
            mark: format!("{RUN_VARIABLE}={id}").into_bytes(),
            // A namespace is known by the file that `ip netns` made for it.
            namespaces: namespaces
                .iter()
                .filter_map(|name| identity(&Path::new("/run/netns").join(name)))
                .collect(),
        }
    }

    /// Its processes, each held, so that its number cannot come to mean another.
    fn processes(&self) -> Vec<OwnedFd> {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        entries
            .filter_map(|entry| {
                let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
                let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
                (pid != rustix::process::getpid() && self.has(&entry.path())).then_some(process)
            })
            .collect()
    }

    fn has(&self, process: &Path) -> bool {
        let marked = fs::read(process.join("environ"))
            .is_ok_and(|environment| environment.split(|b| *b == 0).any(|v| v == self.mark));
        let inside =
            || identity(&process.join("ns/net")).is_some_and(|net| self.namespaces.contains(&net));
        // A zombie has no environment and no namespace any more: it has ended.
        marked || inside()
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let meta = fs::metadata(path).ok()?;
    Some((meta.dev(), meta.ino()))
}
