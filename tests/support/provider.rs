//! A SPIFFE provider that is not weft: `provider/provider.py`, in an environment with packages of others.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::LazyLock;

use crate::environment;
use crate::support::World;

const REQUIREMENTS: &str = include_str!("provider/requirements.txt");
const SCRIPT: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../tests/support/provider/provider.py"
);

/// A Python that has the packages; `None` when there is none, and this is not CI.
fn python() -> Option<&'static Path> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        environment::made_once("provider", REQUIREMENTS, "bin/python", |place| {
            let list = place.with_extension("txt");
            std::fs::write(&list, REQUIREMENTS).map_err(|e| format!("{}: {e}", list.display()))?;
            let file = list.display().to_string();
            environment::pip_install(place, &["-r", &file])?;
            std::fs::remove_file(&list).map_err(|e| format!("{file}: {e}"))?;
            Ok(place.to_owned())
        })
    });
    environment::or_skip(&PYTHON, "a SPIFFE provider")
}

/// One that runs, and ends with this.
pub(crate) struct Provider {
    child: Child,
    commands: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its Workload API.
    pub(crate) socket: PathBuf,
    /// Its roots, PEM.
    pub(crate) bundle: PathBuf,
    id: String,
}

impl Provider {
    /// One that gives this identity to whoever asks; `None` when there is none, and this is not CI.
    pub(crate) fn start(world: &World, id: &str) -> Option<Self> {
        let (socket, bundle) = (world.path("provider.sock"), world.path("provider.pem"));
        Self::start_at(socket, bundle, id)
    }

    fn start_at(socket: PathBuf, bundle: PathBuf, id: &str) -> Option<Self> {
        let mut child = Command::new(python()?)
            .arg(SCRIPT)
            .arg(&socket)
            .arg(id)
            .arg(&bundle)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("Python starts");
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        let mut provider = Self {
            child,
            commands,
            answers,
            socket,
            bundle,
            id: id.to_owned(),
        };
        provider.answered();
        Some(provider)
    }

    /// Has it do something, and waits until it has.
    pub(crate) fn tell(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("it runs");
        self.answered();
    }

    fn answered(&mut self) {
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        assert_eq!(line, "ok\n", "from the provider");
    }

    /// The address, as `--identity` takes it.
    pub(crate) fn address(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// Ends it, and starts another in its place, which knows nothing of the first one's keys.
    pub(crate) fn replaced(mut self) -> Self {
        self.end();
        let (socket, bundle) = (self.socket.clone(), self.bundle.clone());
        Self::start_at(socket, bundle, &self.id.clone()).expect("it has run before")
    }

    /// Ends it.
    pub(crate) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Provider {
    fn drop(&mut self) {
        self.end();
    }
}
