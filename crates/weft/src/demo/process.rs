//! The demo's processes: this same executable, started again.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::tether;
use super::wait::{Deadline, eventually};

/// Longest wait for a process to say that it is ready. A debug build on a busy machine needs a second.
const READY: Duration = Duration::from_secs(15);

/// Starts this executable with the demo's environment.
#[derive(Debug, Clone)]
pub(super) struct Launcher {
    exe: PathBuf,
    dir: PathBuf,
}

/// A running process of the demo. Killed when dropped.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) pid: u32,
    child: Child,
    log: PathBuf,
    ready_file: PathBuf,
}

/// What a command of the CLI gave back.
#[derive(Debug, Clone)]
pub(super) struct Ran {
    pub(super) code: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Launcher {
    /// Processes keep their files in `dir`.
    pub(super) fn new(dir: &Path) -> Result<Self, String> {
        let exe =
            std::env::current_exe().map_err(|error| format!("cannot find weft itself: {error}"))?;
        Ok(Self {
            exe,
            dir: dir.to_owned(),
        })
    }

    fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(&self.exe);
        command.args(args);
        // Settings of the user's own mesh must not leak into the demo's.
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("WEFT_") {
                command.env_remove(name);
            }
        }
        command
            .env(tether::PARENT, std::process::id().to_string())
            .current_dir(&self.dir)
            // Ctrl-C is for the demo alone, which then ends its children in order.
            .process_group(0)
            .kill_on_drop(true);
        command
    }

    /// Starts a process that writes a ready file. Its output goes to `<name>.log` in the demo's folder.
    pub(super) fn start(&self, name: &str, args: &[String]) -> Result<Process, String> {
        let ready_file = self.dir.join(format!("{name}.ready"));
        let log = self.dir.join(format!("{name}.log"));
        remove_stale(&ready_file)?;
        let open = || {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .map_err(|error| format!("cannot write {}: {error}", log.display()))
        };
        let mut command = self.command(args);
        command
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(open()?)
            .stderr(open()?);
        let child = command
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let pid = child
            .id()
            .ok_or_else(|| format!("{name} ended as it started"))?;
        Ok(Process {
            name: name.to_owned(),
            pid,
            child,
            log,
            ready_file,
        })
    }

    /// Runs a command of the CLI to its end, with `input` on its standard input.
    pub(super) async fn run(&self, args: &[&str], input: Option<&str>) -> Result<Ran, String> {
        let what = format!("weft {}", args.join(" "));
        let mut child = self
            .command(args)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot run {what}: {error}"))?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // A command that does not read its input says so by its exit code.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output())
            .await
            .map_err(|_| format!("{what} did not end within 30 s"))?
            .map_err(|error| format!("cannot run {what}: {error}"))?;
        Ok(Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts the process that removes the folder when this one is gone. It outlives it on purpose.
    pub(super) fn start_sweeper(&self) -> Result<Child, String> {
        let mut command = self.command(&["demo-sweep"]);
        command
            .arg(&self.dir)
            .current_dir("/")
            .env_remove(tether::PARENT)
            .kill_on_drop(false)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
            .spawn()
            .map_err(|error| format!("cannot start the sweeper: {error}"))
    }
}

impl Ran {
    /// The output as JSON, if the command ended well.
    pub(super) fn json(&self, what: &str) -> Result<Value, String> {
        if self.code != Some(0) {
            return Err(format!("{what} failed: {}", self.stderr.trim()));
        }
        serde_json::from_str(&self.stdout)
            .map_err(|error| format!("{what} printed no JSON: {error}"))
    }
}

impl Process {
    /// Waits for the ready file and gives its content.
    pub(super) async fn ready(&mut self) -> Result<Value, String> {
        let deadline = Deadline::after(READY);
        let what = format!("{} to become ready", self.name);
        let (file, log) = (self.ready_file.clone(), self.log.clone());
        let child = &mut self.child;
        let name = &self.name;
        eventually(deadline, &what, async || {
            if let Ok(text) = std::fs::read_to_string(&file) {
                return serde_json::from_str(&text)
                    .map(Some)
                    .map_err(|error| format!("{name} wrote a bad ready file: {error}"));
            }
            match child.try_wait() {
                Ok(None) => Ok(None),
                Ok(Some(status)) => Err(format!(
                    "{name} ended before it was ready ({status}): {}",
                    last_line(&log)
                )),
                Err(error) => Err(format!("cannot wait for {name}: {error}")),
            }
        })
        .await
    }

    /// Whether it still runs.
    pub(super) fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// How it ended, if it has: nobody but the demo should end it.
    pub(super) fn fallen(&mut self) -> Option<String> {
        let status = self.child.try_wait().ok()??;
        Some(format!("the process {} has ended ({status})", self.name))
    }

    /// `kill -9`, and waits until it is gone.
    pub(super) async fn kill(&mut self) -> Result<(), String> {
        self.child
            .kill()
            .await
            .map_err(|error| format!("cannot kill {}: {error}", self.name))
    }

    /// SIGTERM, without waiting.
    pub(super) fn terminate(&self) {
        if let Some(pid) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            // It may have ended already.
            let _ = kill_process(pid, Signal::TERM);
        }
    }

    /// Waits for its end up to `grace`, then kills it. Whether it ended by itself, with exit code 0.
    pub(super) async fn end(&mut self, grace: Duration) -> bool {
        match tokio::time::timeout(grace, self.child.wait()).await {
            Ok(Ok(status)) => status.success(),
            _ => {
                let _ = self.child.kill().await;
                false
            }
        }
    }
}

fn remove_stale(file: &Path) -> Result<(), String> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("cannot remove {}: {error}", file.display()))
        }
        _ => Ok(()),
    }
}

/// The last line of a log: where a process says why it gave up.
fn last_line(log: &Path) -> String {
    std::fs::read_to_string(log)
        .ok()
        .and_then(|text| text.trim_end().lines().last().map(str::to_owned))
        .unwrap_or_else(|| "it said nothing".to_owned())
}
