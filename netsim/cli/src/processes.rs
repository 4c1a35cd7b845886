//! The processes of a run: those that carry its id in their environment, and those in its namespaces.

use std::fs;
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

/// Ends all processes of the run `id`, the calling one excepted: asks, then insists.
pub(crate) fn end(id: &str, namespaces: &[String]) {
    for signal in [Signal::TERM, Signal::KILL] {
        let clock = Clock::start();
        let mut next = STEP;
        while signal_all(id, namespaces, signal) && clock.now() < GRACE {
            clock.sleep_until(next);
            next += STEP;
        }
    }
}

/// Signals them; whether there were any.
fn signal_all(id: &str, namespaces: &[String], signal: Signal) -> bool {
    let run = Run {
        mark: format!("{RUN_VARIABLE}={id}").into_bytes(),
        // A namespace is known by the file that `ip netns` made for it.
        namespaces: namespaces
            .iter()
            .filter_map(|name| identity(&Path::new("/run/netns").join(name)))
            .collect(),
    };
    let Ok(entries) = fs::read_dir("/proc") else {
        return false;
    };
    let mut any = false;
    for entry in entries.flatten() {
        let pid = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && pid != rustix::process::getpid()
            // Held before it is looked at: its number cannot come to mean another process.
            && let Ok(process) = pidfd_open(pid, PidfdFlags::empty())
            && run.has(&entry.path())
        {
            any |= pidfd_send_signal(process, signal).is_ok();
        }
    }
    any
}

struct Run {
    mark: Vec<u8>,
    namespaces: Vec<(u64, u64)>,
}

impl Run {
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
