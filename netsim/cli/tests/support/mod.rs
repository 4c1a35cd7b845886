//! What the tests of the command share.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use weft_netsim_tun::{Clock, preflight};

/// Longest wait for anything that should happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Whether the machine can run the test. Where CI runs as root it must.
pub(crate) fn possible() -> bool {
    match preflight() {
        Ok(()) => true,
        Err(why) => {
            let must = std::env::var("CI").is_ok_and(|ci| ci == "true")
                && rustix::process::geteuid().is_root();
            assert!(!must, "CI as root must run this test: {why}");
            eprintln!("skipped: {why}");
            false
        }
    }
}

/// `weft-netsim`.
pub(crate) fn netsim() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft-netsim"));
    command.stdin(Stdio::null());
    command
}

/// A file of `netsim/examples`.
pub(crate) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../examples")
        .join(name)
}

/// Waits for `done`, with a deadline.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let clock = Clock::start();
    while !done() {
        assert!(clock.now() < PATIENCE, "waited in vain until {what}");
        clock.sleep_until(clock.now() + Duration::from_millis(5));
    }
}

/// A `weft-netsim run` with its command's variables.
pub(crate) struct Run {
    /// The process.
    pub(crate) child: Child,
    /// `NAME=value` lines that the command printed.
    variables: Vec<String>,
    /// What the command prints further; kept open, or it would die of writing.
    _out: BufReader<ChildStdout>,
}

impl Run {
    /// Runs `script` in the mesh of an example. It is to print its environment and then an empty line.
    pub(crate) fn start(mesh: &Path, script: &str) -> Self {
        let mut child = netsim()
            .arg("run")
            .arg(mesh)
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let mut variables = Vec::new();
        loop {
            let mut line = String::new();
            assert_ne!(
                out.read_line(&mut line).unwrap(),
                0,
                "the command has begun"
            );
            match line.trim_end() {
                "" => break,
                line => variables.push(line.to_owned()),
            }
        }
        Self {
            child,
            variables,
            _out: out,
        }
    }

    /// A variable of the command.
    pub(crate) fn variable(&self, name: &str) -> &str {
        self.variables
            .iter()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
            .unwrap_or_else(|| panic!("{name} is among {:?}", self.variables))
    }

    /// The run's id.
    pub(crate) fn id(&self) -> String {
        self.variable("WEFT_NETSIM_RUN").to_owned()
    }
}

/// What is left of the run `id`: namespaces, locks, processes.
pub(crate) fn left_of(id: &str) -> Vec<String> {
    let mut left = Vec::new();
    for (directory, begin, end) in [
        ("/run/netns", format!("weftsim-{id}-"), String::new()),
        ("/run/weft-netsim", id.to_owned(), ".lock".to_owned()),
    ] {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        left.extend(
            entries
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|name| name.starts_with(&begin) && name.ends_with(&end)),
        );
    }
    left.extend(processes_of(id));
    left
}

/// Its processes: those with its mark in their environment, and its watcher.
pub(crate) fn processes_of(id: &str) -> Vec<String> {
    let mark = format!("WEFT_NETSIM_RUN={id}");
    processes(|process| has(process, "environ", &mark) || watches(process, id))
}

/// The number of the run's watcher.
pub(crate) fn watcher_of(id: &str) -> Option<String> {
    processes(|process| watches(process, id)).pop()
}

fn watches(process: &Path, id: &str) -> bool {
    has(process, "cmdline", "__watch") && has(process, "cmdline", id)
}

fn has(process: &Path, file: &str, word: &str) -> bool {
    std::fs::read(process.join(file))
        .is_ok_and(|text| text.split(|b| *b == 0).any(|part| part == word.as_bytes()))
}

fn processes(wanted: impl Fn(&Path) -> bool) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|entry| wanted(&entry.path()))
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// Sends a signal to a process by its number.
pub(crate) fn signal(pid: &str, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.parse().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

/// Keeps every other start of a run waiting, so that none sweeps while a test looks at what is left.
pub(crate) fn hold_starts() -> std::fs::File {
    let starts = std::fs::File::open("/run/weft-netsim/starts").unwrap();
    rustix::fs::flock(&starts, rustix::fs::FlockOperation::LockExclusive).unwrap();
    starts
}
