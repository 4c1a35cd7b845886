//! Real processes for end-to-end tests: a folder, the `weft` of this build, and waits with deadlines.
//!
//! Every process carries the demo's tether, so it dies with the test that started it.

#![allow(
    dead_code,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "each test file uses a part; tests stand outside Env"
)]

pub(crate) mod load;
pub(crate) mod shop;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything that should happen at once. A busy CI machine is slow, not stuck.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A folder with the state of one mesh.
pub(crate) struct World {
    pub(crate) dir: TempDir,
}

/// A process that runs until it is told to end, or dropped.
pub(crate) struct Running {
    pub(crate) name: String,
    pub(crate) child: Child,
    pub(crate) ready: Value,
    log: PathBuf,
}

/// What a command left behind.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("output is UTF-8"),
            stderr: String::from_utf8(output.stderr).expect("errors are UTF-8"),
        }
    }
}

impl Ran {
    /// The output as JSON of a command that must have succeeded.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        self.ok();
        serde_json::from_str(&self.stdout).expect("output is JSON")
    }

    /// A command that must have succeeded.
    #[track_caller]
    pub(crate) fn ok(&self) -> &Self {
        assert_eq!(self.code, Some(0), "expected success, saw {self:?}");
        self
    }

    /// A command that must have failed with exit code 1 and one sentence that has all of `words`.
    #[track_caller]
    pub(crate) fn fails_with(&self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "expected exit code 1, saw {self:?}");
        let sentences: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("weft: "))
            .collect();
        assert_eq!(sentences.len(), 1, "expected one sentence, saw {self:?}");
        for word in words {
            assert!(
                sentences[0].contains(word),
                "expected '{word}' in '{}'",
                sentences[0]
            );
        }
    }
}

/// `weft` with an environment of its own.
pub(crate) fn weft<I, S>(args: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<std::ffi::OsStr>,
{
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(args).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("WEFT_") {
            command.env_remove(name);
        }
    }
    command.env("WEFT_DEMO_PARENT", std::process::id().to_string());
    command
}

/// Runs a command to its end; one that hangs is a failure of the test.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Ran {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("weft starts");
    let (out, err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let reader = |mut from: Box<dyn Read + Send>| {
        std::thread::spawn(move || {
            let mut text = String::new();
            from.read_to_string(&mut text).expect("output is UTF-8");
            text
        })
    };
    let (out, err) = (reader(Box::new(out)), reader(Box::new(err)));
    let status = ended(&mut child, SOON).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{command:?} did not end within {SOON:?}");
    });
    Ran {
        code: status.code(),
        stdout: out.join().unwrap(),
        stderr: err.join().unwrap(),
    }
}

/// The exit status, if the process ends in time.
pub(crate) fn ended(child: &mut Child, within: Duration) -> Option<ExitStatus> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            return None;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Observes until something is seen; panics with `what` at the deadline.
#[track_caller]
pub(crate) fn eventually<T>(what: &str, mut observe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + SOON;
    loop {
        if let Some(seen) = observe() {
            return seen;
        }
        assert!(Instant::now() < deadline, "waited {SOON:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

impl World {
    /// An empty folder.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("weft-test-")
            .tempdir()
            .unwrap();
        Self { dir }
    }

    /// A folder in which `weft init` has run.
    #[track_caller]
    pub(crate) fn initialised() -> (Self, String) {
        let world = Self::new();
        let init = world.admin(&["init", "-o", "json"]).json();
        let pin = init["pin"]
            .as_str()
            .expect("init prints the pin")
            .to_owned();
        (world, pin)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn control_dir(&self) -> PathBuf {
        self.path("control")
    }

    /// Writes a file and gives its path as text.
    pub(crate) fn file(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Runs a command on the state of the control node.
    #[track_caller]
    pub(crate) fn admin(&self, args: &[&str]) -> Ran {
        run(weft(args).arg("--state-dir").arg(self.control_dir()))
    }

    /// Flags of a control node.
    pub(crate) fn control_args(&self, listen: &str) -> Vec<String> {
        vec![
            "control".to_owned(),
            format!("--state-dir={}", self.control_dir().display()),
            format!("--listen={listen}"),
            "--metrics=127.0.0.1:0".to_owned(),
        ]
    }

    /// A running control node.
    #[track_caller]
    pub(crate) fn control(&self) -> Running {
        self.start("control", &self.control_args("127.0.0.1:0"))
    }

    /// Makes a join token and gives the file that holds it.
    #[track_caller]
    pub(crate) fn token(&self, service: &str, ttl: &str) -> String {
        let made = self
            .admin(&[
                "token",
                "create",
                "--service",
                service,
                "--ttl",
                ttl,
                "-o",
                "json",
            ])
            .json();
        let token = made["token"].as_str().expect("a token is printed");
        self.file(&format!("token-{}", &token[token.len() - 8..]), token)
    }

    /// Flags of a sidecar whose state is in `name`.
    pub(crate) fn sidecar_args(
        &self,
        name: &str,
        control: &str,
        pin: &str,
        token: &str,
    ) -> Vec<String> {
        vec![
            "sidecar".to_owned(),
            format!("--state-dir={}", self.path(name).display()),
            format!("--control={control}"),
            format!("--pin={pin}"),
            format!("--token-file={token}"),
            "--listen=127.0.0.1:0".to_owned(),
            "--outbound=127.0.0.1:0".to_owned(),
            "--metrics=127.0.0.1:0".to_owned(),
        ]
    }

    /// Starts a process that writes a ready file and waits for it.
    #[track_caller]
    pub(crate) fn start(&self, name: &str, args: &[String]) -> Running {
        self.start_command(name, weft(args))
    }

    /// The same with a command that is made ready.
    #[track_caller]
    pub(crate) fn start_command(&self, name: &str, mut command: Command) -> Running {
        let ready_file = self.path(&format!("{name}.ready"));
        command.arg("--ready-file").arg(&ready_file);
        self.start_writing(name, command, &[("", ready_file)])
    }

    /// Starts a process and waits for its ready files. What it says in several is kept by their names.
    #[track_caller]
    pub(crate) fn start_writing(
        &self,
        name: &str,
        mut command: Command,
        ready_files: &[(&str, PathBuf)],
    ) -> Running {
        for (_, file) in ready_files {
            let _ = std::fs::remove_file(file);
        }
        let log = self.path(&format!("{name}.log"));
        let open = || {
            std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .unwrap()
        };
        let mut child = command
            .stdout(open())
            .stderr(open())
            .spawn()
            .expect("weft starts");
        let mut one = |file: &Path| {
            eventually(&format!("{name} to become ready"), || {
                if let Some(status) = child.try_wait().unwrap() {
                    let said = std::fs::read_to_string(&log).unwrap_or_default();
                    panic!("{name} ended before it was ready ({status}): {said}");
                }
                let text = std::fs::read_to_string(file).ok()?;
                Some(serde_json::from_str::<Value>(&text).expect("the ready file is JSON"))
            })
        };
        let ready = match ready_files {
            [(_, file)] => one(file),
            several => several
                .iter()
                .map(|(of, file)| ((*of).to_owned(), one(file)))
                .collect(),
        };
        Running {
            name: name.to_owned(),
            child,
            ready,
            log,
        }
    }

    /// A sample application, as the demo uses it.
    #[track_caller]
    pub(crate) fn app(&self, name: &str) -> Running {
        let args = ["demo-app".to_owned(), format!("--name={name}")];
        self.start(&format!("{name}-app"), &args)
    }

    /// Starts a process that is expected to end by itself, with failure.
    #[track_caller]
    pub(crate) fn run(&self, args: &[String]) -> Ran {
        run(&mut weft(args))
    }

    /// Everything below a folder with its content: two equal pictures mean that nothing changed.
    pub(crate) fn picture(&self, name: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        let mut rest = vec![self.path(name)];
        while let Some(path) = rest.pop() {
            let Ok(meta) = std::fs::symlink_metadata(&path) else {
                continue;
            };
            if meta.is_dir() {
                rest.extend(std::fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
                files.push((path, Vec::new()));
            } else if meta.is_file() {
                let content = std::fs::read(&path).unwrap();
                files.push((path, content));
            }
        }
        files.sort();
        files
    }
}

impl Running {
    /// An address of the ready file.
    #[track_caller]
    pub(crate) fn addr(&self, field: &str) -> SocketAddr {
        self.ready[field]
            .as_str()
            .and_then(|text| text.parse().ok())
            .unwrap_or_else(|| panic!("{} has no address '{field}': {}", self.name, self.ready))
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// SIGTERM, and its exit status.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        signal(self.child.id(), "TERM");
        ended(&mut self.child, SOON)
            .unwrap_or_else(|| panic!("{} did not end on SIGTERM: {}", self.name, self.log()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // Thousands of requests would bury what happened.
            let log = self.log();
            let lines = log.lines().filter(|line| !line.contains("INFO access:"));
            let told: Vec<&str> = lines.collect();
            eprintln!(
                "--- log of {}, without requests:\n{}",
                self.name,
                told.join("\n")
            );
        }
    }
}

/// Sends a signal by name.
pub(crate) fn signal(pid: u32, name: &str) {
    let status = Command::new("kill")
        .args([format!("-{name}"), pid.to_string()])
        .status()
        .expect("kill runs");
    assert!(status.success(), "kill -{name} {pid}");
}

/// Puts a command into a process group of its own, as a terminal does.
pub(crate) fn own_group(command: &mut Command) -> &mut Command {
    command.process_group(0)
}

/// A reply, read by hand so that nothing is hidden.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// `GET path` for `host` at `addr`, or why there was no reply.
pub(crate) fn get(addr: SocketAddr, host: &str, path: &str) -> Result<Reply, std::io::Error> {
    let mut stream = TcpStream::connect(addr)?;
    stream.set_read_timeout(Some(SOON))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let (head, body) = text
        .split_once("\r\n\r\n")
        .ok_or_else(|| std::io::Error::other(format!("no reply but '{text}'")))?;
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| std::io::Error::other(format!("no status in '{head}'")))?;
    Ok(Reply {
        status,
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    })
}

/// Whether a process exists.
pub(crate) fn exists(pid: u32) -> bool {
    // A zombie still has a folder, but no command line.
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline"))
        .is_ok_and(|line| !line.is_empty())
}
