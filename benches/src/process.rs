//! Processes that this program starts: in a place, with a log, killed when dropped.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::error::{Error, Result};

/// How long a process may take to become ready. Others may be building on the same machine.
pub(crate) const READY: Duration = Duration::from_secs(20);
/// How often it is looked at meanwhile.
const EVERY: Duration = Duration::from_millis(10);

/// Where processes run: an address, and the words that bring a command into its network namespace.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    /// The address that its processes listen on.
    pub(crate) ip: IpAddr,
    /// Such as `ip netns exec NAME`; empty for here.
    pub(crate) prefix: Vec<String>,
}

impl Place {
    /// This process's own namespace, on loopback.
    pub(crate) fn here() -> Self {
        Self {
            ip: Ipv4Addr::LOCALHOST.into(),
            prefix: Vec::new(),
        }
    }

    /// A command that runs there.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut words = self
            .prefix
            .iter()
            .map(OsStr::new)
            .chain([program.as_os_str()]);
        let first = words.next().unwrap_or(program.as_os_str());
        let mut command = Command::new(first);
        command.args(words).kill_on_drop(true);
        command
    }

    /// An address with a port that nobody has now.
    pub(crate) fn addr(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, port)
    }
}

/// A running process. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    pid: u32,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; its output goes to `<name>.log` in `dir`.
    pub(crate) fn start<S: AsRef<OsStr>>(
        place: &Place,
        dir: &Path,
        name: &str,
        program: &Path,
        args: &[S],
    ) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let open = || {
            let mut options = std::fs::OpenOptions::new();
            let file = options.create(true).append(true).open(&log);
            file.map_err(Error::io(format!("write {}", log.display())))
        };
        let mut command = place.command(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?)
            .current_dir(dir);
        let child = command
            .spawn()
            .map_err(Error::io(format!("start {name} ({})", program.display())))?;
        let pid = child.id().unwrap_or_default();
        Ok(Self {
            name: name.to_owned(),
            pid,
            child,
            log,
        })
    }

    /// Its process id and those of its workers. `ip netns exec` replaces itself, so the first is the
    /// program's own.
    pub(crate) fn family(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(path).unwrap_or_default();
        let workers = children
            .split_ascii_whitespace()
            .filter_map(|pid| pid.parse().ok());
        std::iter::once(self.pid).chain(workers).collect()
    }

    /// Waits until the process has written a whole file, which it does once it serves.
    pub(crate) async fn ready_file(&mut self, file: &Path) -> Result<String> {
        let deadline = Instant::now() + READY;
        loop {
            if let Ok(text) = std::fs::read_to_string(file) {
                return Ok(text);
            }
            if Instant::now() > deadline {
                return Err(self.failed(format!("was not ready within {READY:?}")));
            }
            self.wait_a_little().await?;
        }
    }

    /// One step of waiting for it; an error when it has ended.
    pub(crate) async fn wait_a_little(&mut self) -> Result<()> {
        if let Ok(Some(status)) = self.child.try_wait() {
            return Err(self.failed(format!("ended ({status})")));
        }
        tokio::time::sleep(EVERY).await;
        Ok(())
    }

    fn failed(&self, what: String) -> Error {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let last: Vec<&str> = text.trim_end().lines().rev().take(3).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Error::Process {
            name: self.name.clone(),
            what,
            last: last.join(" / "),
        }
    }
}

/// Runs a command to its end and gives its standard output.
pub(crate) async fn run<S: AsRef<OsStr>>(
    place: &Place,
    program: &Path,
    args: &[S],
) -> Result<String> {
    let mut command = place.command(program);
    command.args(args).stdin(Stdio::null());
    let shown = format!("{:?}", command.as_std());
    let output = command
        .output()
        .await
        .map_err(Error::io(format!("run {shown}")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(Error::Command {
        command: shown,
        reason: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}

/// A program by its name, in the folders of PATH and those where daemons are.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/usr/local/sbin".into()])
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}
