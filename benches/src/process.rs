//! Processes: started with a tether, watched by `/proc`, ended when dropped.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::error::{Error, Result};

/// Longest wait for a process to say that it serves: joins over a slow and lossy link take seconds.
const READY: Duration = Duration::from_secs(30);

/// Where processes run and keep their files.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// Words before the command, to run it in a namespace. None on this machine itself.
    pub(crate) prefix: Vec<String>,
    /// Folder for logs and ready files.
    pub(crate) dir: PathBuf,
}

/// A process. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its name in results.
    pub(crate) name: String,
    child: Child,
    log: PathBuf,
    ready_file: PathBuf,
}

impl Place {
    /// A command there. It dies with this process, however this ends.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut words = self.prefix.iter().map(String::as_str);
        let tether = ["setpriv", "--pdeathsig", "KILL", "--"];
        let first = words.next();
        let mut command = Command::new(first.unwrap_or(tether[0]));
        if first.is_some() {
            command.args(words).arg(tether[0]);
        }
        command.args(&tether[1..]).arg(program);
        // Settings of a mesh of the user's must not leak in; the run of weft-netsim must be known.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("WEFT_") && name != "WEFT_NETSIM_RUN" {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null());
        command
    }

    /// Where a process of that name says that it is ready.
    pub(crate) fn ready_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.ready"))
    }

    /// Starts a process; what it says goes to a log.
    pub(crate) fn start(&self, name: &str, mut command: Command) -> Result<Process> {
        let log = self.dir.join(format!("{name}.log"));
        let open = || {
            let file = OpenOptions::new().create(true).append(true).open(&log);
            file.map_err(Error::io(format!("write {}", log.display())))
        };
        let child = command
            .stdout(open()?)
            .stderr(open()?)
            .spawn()
            .map_err(Error::io(format!("start {name}")))?;
        Ok(Process {
            name: name.to_owned(),
            child,
            ready_file: self.ready_file(name),
            log,
        })
    }
}

impl Process {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its ready file.
    pub(crate) fn ready(&mut self) -> Result<Value> {
        let file = self.ready_file.clone();
        let text = self.wait_for("become ready", || std::fs::read_to_string(&file).ok())?;
        serde_json::from_str(&text).map_err(Error::because("a ready file"))
    }

    /// Waits until something is seen, as long as the process lives.
    pub(crate) fn wait_for<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut() -> Option<T>,
    ) -> Result<T> {
        let deadline = Instant::now() + READY;
        loop {
            if let Some(seen) = look() {
                return Ok(seen);
            }
            let ended = self.child.try_wait().ok().flatten();
            if ended.is_some() || Instant::now() > deadline {
                let (name, log) = (&self.name, self.last_words());
                return Err(Error::said(format!("{name} did not {what}: {log}")));
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.trim_end().lines().rev().take(3).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join(" / ")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        for pid in family(self.child.id()).into_iter().skip(1) {
            let pid = i32::try_from(pid)
                .ok()
                .and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process and its children, and theirs.
fn family(pid: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_string_lossy().parse().ok()?;
            Some((pid, parent(pid)?))
        })
        .collect();
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == all[at]);
        let children: Vec<u32> = children.map(|(pid, _)| *pid).collect();
        all.extend(children);
        at += 1;
    }
    all
}

/// The parent: the second field after the name, which is in brackets and may have spaces.
fn parent(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// CPU seconds that a process and its children have used: `schedstat` of their threads, in ns. A thread
/// that has ended is missing from it, so these are for processes with threads that stay.
pub(crate) fn cpu_seconds(pid: u32) -> Option<f64> {
    let mut sum = 0_u64;
    let mut seen = false;
    for pid in family(pid) {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        for task in tasks.flatten() {
            let text = std::fs::read_to_string(task.path().join("schedstat"));
            let text = text.unwrap_or_default();
            if let Some(ns) = text
                .split_whitespace()
                .next()
                .and_then(|ns| ns.parse::<u64>().ok())
            {
                sum += ns;
                seen = true;
            }
        }
    }
    seen.then_some(sum as f64 * 1e-9)
}

/// Resident memory of a process and its children.
pub(crate) fn rss_kib(pid: u32) -> Option<u64> {
    let one = |pid: u32| -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let fields: BTreeMap<&str, &str> = status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .collect();
        fields.get("VmRSS")?.split_whitespace().next()?.parse().ok()
    };
    let all: Vec<u64> = family(pid).into_iter().filter_map(one).collect();
    (!all.is_empty()).then(|| all.iter().sum())
}
