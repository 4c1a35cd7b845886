//! The demo's mesh: its folder, its processes, and the questions that steps ask of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;
use weft_env::Env;

use super::admin::Admin;
use super::http::{self, Reply};
use super::process::{Launcher, Process, Ran};
use super::tether;

/// The service port of the sample TCP application.
pub(super) const TCP_PORT: u16 = 5432;

/// How long processes may take to end in order at the end.
const GRACE: Duration = Duration::from_secs(2);

/// Everything that runs. Dropping it kills what is left.
pub(super) struct Mesh {
    pub(super) env: Env,
    pub(super) launcher: Launcher,
    pub(super) control: Option<Control>,
    pub(super) sidecars: BTreeMap<String, Sidecar>,
    pub(super) apps: BTreeMap<String, App>,
    /// The root's pin, as `weft init` printed it.
    pub(super) pin: String,
    /// The table of edges, once the last step has read it.
    pub(super) edges: Option<String>,
    sweeper: Option<Child>,
    // Last, so that everything has ended before its folder goes.
    dir: TempDir,
}

/// The control node.
pub(super) struct Control {
    pub(super) process: Process,
    pub(super) mesh: SocketAddr,
    pub(super) metrics: SocketAddr,
}

/// A sidecar and the addresses in its ready file.
pub(super) struct Sidecar {
    pub(super) process: Process,
    pub(super) mesh: SocketAddr,
    pub(super) outbound: SocketAddr,
    pub(super) metrics: SocketAddr,
    pub(super) tcp: Vec<SocketAddr>,
}

/// A sample application.
pub(super) struct App {
    pub(super) process: Process,
    pub(super) http: SocketAddr,
    pub(super) tcp: SocketAddr,
}

#[derive(Deserialize)]
struct ControlReady {
    mesh: SocketAddr,
    metrics: SocketAddr,
}

#[derive(Deserialize)]
struct SidecarReady {
    mesh: SocketAddr,
    outbound: SocketAddr,
    metrics: SocketAddr,
    tcp: Vec<SocketAddr>,
}

#[derive(Deserialize)]
struct AppReady {
    http: SocketAddr,
    tcp: SocketAddr,
}

/// What a sidecar of the demo is started with.
pub(super) struct Spec<'a> {
    /// Name of the process, and of its folder.
    pub(super) name: &'a str,
    /// Service for which it joins.
    pub(super) service: &'a str,
    /// `--app` settings.
    pub(super) apps: Vec<String>,
    /// `--tcp-listen` settings.
    pub(super) tcp_listen: Vec<String>,
    /// Address of its mesh listener.
    pub(super) listen: SocketAddr,
}

impl Mesh {
    /// A folder and nothing in it yet.
    pub(super) fn new(env: &Env) -> Result<Self, String> {
        let dir = tempfile::Builder::new()
            .prefix(tether::DIR_PREFIX)
            .permissions(PermissionsExt::from_mode(0o700))
            .tempdir()
            .map_err(|error| format!(
                    "cannot make a temporary folder: {error}; set TMPDIR to one that you may write to"
                ))?;
        let launcher = Launcher::new(dir.path())?;
        let sweeper = Some(launcher.start_sweeper()?);
        Ok(Self {
            env: env.clone(),
            launcher,
            control: None,
            sidecars: BTreeMap::new(),
            apps: BTreeMap::new(),
            pin: String::new(),
            edges: None,
            sweeper,
            dir,
        })
    }

    /// A path in the demo's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// State directory of the control node.
    pub(super) fn control_dir(&self) -> PathBuf {
        self.path("control")
    }

    /// Runs a command of the CLI against the demo's control node.
    pub(super) async fn weft(&self, args: &[&str]) -> Result<Ran, String> {
        let dir = self.control_dir();
        let dir = dir.to_string_lossy();
        let mut all = args.to_vec();
        all.extend(["--state-dir", &dir]);
        self.launcher.run(&all, None).await
    }

    /// Runs a command of the CLI and gives its JSON.
    pub(super) async fn weft_json(&self, args: &[&str]) -> Result<Value, String> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let what = format!("weft {}", args.join(" "));
        self.weft(&all).await?.json(&what)
    }

    /// `weft apply --wait` of a YAML text; its JSON (with the receipts) and how it ended.
    pub(super) async fn apply(&self, name: &str, yaml: &str) -> Result<Ran, String> {
        let file = self.path(name);
        std::fs::write(&file, yaml)
            .map_err(|error| format!("cannot write {}: {error}", file.display()))?;
        let file = file.to_string_lossy().into_owned();
        self.weft(&[
            "apply",
            "-f",
            &file,
            "--wait",
            "--timeout",
            "5s",
            "-o",
            "json",
        ])
        .await
    }

    /// The control node's admin API.
    pub(super) fn admin(&self) -> Admin {
        Admin::new(&self.env, &self.control_dir())
    }

    /// The control node, which the first step has started.
    pub(super) fn control(&mut self) -> Result<&mut Control, String> {
        self.control
            .as_mut()
            .ok_or_else(|| "the control node is not running".to_owned())
    }

    /// A sidecar by the name of its process.
    pub(super) fn sidecar(&self, name: &str) -> Result<&Sidecar, String> {
        self.sidecars
            .get(name)
            .ok_or_else(|| format!("the sidecar '{name}' is not running"))
    }

    /// Starts the control node on `listen` and waits until it serves.
    pub(super) async fn start_control(&mut self, listen: SocketAddr) -> Result<(), String> {
        let args = [
            "control".to_owned(),
            format!("--state-dir={}", self.control_dir().display()),
            format!("--listen={listen}"),
            "--metrics=127.0.0.1:0".to_owned(),
        ];
        let mut process = self.launcher.start("control", &args)?;
        let ready: ControlReady = parse("control", process.ready().await?)?;
        self.control = Some(Control {
            process,
            mesh: ready.mesh,
            metrics: ready.metrics,
        });
        Ok(())
    }

    /// Starts a sample application and waits until it serves.
    pub(super) async fn start_app(&mut self, name: &str) -> Result<(), String> {
        let process_name = format!("{name}-app");
        let args = ["demo-app".to_owned(), format!("--name={name}")];
        let mut process = self.launcher.start(&process_name, &args)?;
        let ready: AppReady = parse(&process_name, process.ready().await?)?;
        let app = App {
            process,
            http: ready.http,
            tcp: ready.tcp,
        };
        self.apps.insert(name.to_owned(), app);
        Ok(())
    }

    /// Makes a token for a service and starts a sidecar that joins with it.
    pub(super) async fn start_sidecar(&mut self, spec: Spec<'_>) -> Result<(), String> {
        let token = self
            .weft_json(&["token", "create", "--service", spec.service])
            .await?;
        let token = token["token"].as_str().ok_or("no token was printed")?;
        let token_file = self.path(&format!("{}.token", spec.name));
        write_secret(&token_file, token)?;
        let state_dir = self.path(spec.name);
        let control = self.control()?.mesh;
        let mut args = vec![
            "sidecar".to_owned(),
            format!("--state-dir={}", state_dir.display()),
            format!("--control={control}"),
            format!("--pin={}", self.pin),
            format!("--token-file={}", token_file.display()),
            format!("--listen={}", spec.listen),
            "--outbound=127.0.0.1:0".to_owned(),
            "--metrics=127.0.0.1:0".to_owned(),
        ];
        args.extend(spec.apps.iter().map(|app| format!("--app={app}")));
        let tcp = spec.tcp_listen.iter();
        args.extend(tcp.map(|listen| format!("--tcp-listen={listen}")));
        let mut process = self.launcher.start(spec.name, &args)?;
        let ready: SidecarReady = parse(spec.name, process.ready().await?)?;
        let sidecar = Sidecar {
            process,
            mesh: ready.mesh,
            outbound: ready.outbound,
            metrics: ready.metrics,
            tcp: ready.tcp,
        };
        self.sidecars.insert(spec.name.to_owned(), sidecar);
        Ok(())
    }

    /// A request of the application beside `caller`, through its sidecar.
    pub(super) async fn get(&self, caller: &str, host: &str, path: &str) -> Result<Reply, String> {
        let outbound = self.sidecar(caller)?.outbound;
        http::get(&self.env, outbound, host, path).await
    }

    /// Names of sidecars whose process has ended.
    pub(super) fn dead(&mut self) -> Vec<String> {
        self.sidecars
            .iter_mut()
            .filter_map(|(name, sidecar)| (!sidecar.process.is_alive()).then(|| name.clone()))
            .collect()
    }

    /// What became of processes that do not run any more.
    pub(super) fn fallen(&mut self) -> Vec<String> {
        let control = self.control.iter_mut().map(|control| &mut control.process);
        let sidecars = self
            .sidecars
            .values_mut()
            .map(|sidecar| &mut sidecar.process);
        let apps = self.apps.values_mut().map(|app| &mut app.process);
        let all = control.chain(sidecars).chain(apps);
        all.filter_map(Process::fallen).collect()
    }

    /// The table of edges, for the end of the story.
    pub(super) fn edges_table(&self) -> Option<&str> {
        self.edges.as_deref()
    }

    /// Commands for `--keep`.
    pub(super) fn things_to_try(&self) -> String {
        let exe = std::env::current_exe().unwrap_or_else(|_| "weft".into());
        let weft = exe.display();
        let state = self.control_dir();
        let state = state.display();
        let outbound = self
            .sidecars
            .get("orders")
            .map_or_else(String::new, |sidecar| sidecar.outbound.to_string());
        let route = self.path("route.yaml");
        let route = route.display();
        format!(
            "
The mesh keeps running until Ctrl-C. In another terminal:

  export WEFT_STATE_DIR={state}
  curl -x http://{outbound} http://invoices/echo
  {weft} status
  {weft} top
  {weft} get httproute invoices -o yaml
  {weft} apply -f {route} --wait
  {weft} cert rotate --all
  {weft} ca rotate"
        )
    }

    /// Ends everything: sidecars and applications in order, then the control node, then the folder.
    pub(super) async fn take_down(mut self) {
        let mut all: Vec<Process> = std::mem::take(&mut self.sidecars)
            .into_values()
            .map(|sidecar| sidecar.process)
            .collect();
        all.extend(
            std::mem::take(&mut self.apps)
                .into_values()
                .map(|app| app.process),
        );
        all.extend(self.control.take().map(|control| control.process));
        for process in &all {
            process.terminate();
        }
        let deadline = tokio::time::Instant::now() + GRACE;
        for process in &mut all {
            process
                .end(deadline.saturating_duration_since(tokio::time::Instant::now()))
                .await;
        }
        // The end of its standard input makes the sweeper remove the folder, so that one place does it.
        if let Some(mut sweeper) = self.sweeper.take() {
            drop(sweeper.stdin.take());
            let _ = tokio::time::timeout(GRACE, sweeper.wait()).await;
        }
    }
}

fn parse<T: for<'de> Deserialize<'de>>(name: &str, ready: Value) -> Result<T, String> {
    serde_json::from_value(ready).map_err(|error| format!("{name} wrote a bad ready file: {error}"))
}

/// Writes a file that only its owner may read.
fn write_secret(path: &Path, text: &str) -> Result<(), String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}
