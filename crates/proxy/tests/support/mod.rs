//! A mesh in one process: a real control node, real sidecars, sample applications, all on loopback.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "shared by several test programs, each of which uses a part; real sockets on purpose"
)]

pub mod access;
pub mod apps;
pub mod client;
pub mod faulty;
#[path = "../../../../tests/support/middlebox.rs"]
pub mod middlebox;
pub mod offline;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use weft_certs::TrustDomain;
use weft_control::{
    AdminClient, ControlConfig, ControlError, ControlReady, InitConfig, TokenRequest, WaitReply,
};
use weft_env::Env;
use weft_proxy::{AppPort, Error, Ready, SidecarConfig, TcpListener, TokenSource};
use weft_wire::Protocol;

/// Everything in a test that is waited for comes within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Says who joins without a token, if it is in the mesh's folder when the control node starts.
pub const ATTEST: &str = "attest.yaml";

/// Lets `orders` call everything of `invoices`.
pub const ORDERS_MAY: &str = "\
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata: {name: orders-may, namespace: default}
spec:
  targetRefs: [{kind: Service, name: invoices}]
  action: ALLOW
  rules:
    - from: [{source: {principals: ['spiffe://weft.local/ns/default/sa/orders']}}]
";

/// A route of `invoices` with a timeout.
pub fn timeout_route(limit: &str) -> String {
    format!(
        "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {{name: invoices, namespace: default}}
spec:
  parentRefs: [{{kind: Service, name: invoices}}]
  rules:
    - timeouts: {{request: {limit}}}
      backendRefs: [{{kind: Service, name: invoices, port: 80}}]
"
    )
}

/// A local TCP port of `orders` that leads to `invoices`.
pub fn outbound_listener(address: SocketAddr, port: u16) -> String {
    format!(
        "\
apiVersion: weft.dev/v1
kind: OutboundListener
metadata: {{name: to-invoices, namespace: default}}
spec:
  workload: {{service: orders}}
  address: {address}
  backend: {{name: invoices, port: {port}}}
"
    )
}

/// Looks again and again until there is something to see.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(seen) = look().await {
            return seen;
        }
        assert!(Instant::now() < end, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A control node that runs.
pub struct Control {
    pub ready: ControlReady,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ControlError>>,
}

/// The mesh.
pub struct Mesh {
    pub env: Env,
    pub dir: TempDir,
    pub control: Option<Control>,
    pub ready: ControlReady,
    pub admin: AdminClient,
}

impl Mesh {
    pub async fn start() -> Self {
        Self::start_on(Env::system()).await
    }

    pub async fn start_on(env: Env) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let control = control(&env, dir.path(), any).await;
        let ready = control.ready.clone();
        let admin = AdminClient::connect(&env, &state(dir.path()))
            .await
            .unwrap();
        Self {
            env,
            dir,
            control: Some(control),
            ready,
            admin,
        }
    }

    /// Stops the control node; its state stays.
    pub async fn stop_control(&mut self) {
        let control = self.control.take().expect("it runs");
        control.stop.cancel();
        timeout(PATIENCE, control.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    /// Why the control node gave up by itself.
    pub async fn control_gives_up(mut self) -> String {
        let control = self.control.take().expect("it runs");
        let ended = timeout(PATIENCE, control.task).await;
        let error = ended.expect("it ends").unwrap().unwrap_err();
        error.to_string()
    }

    /// Starts it again on its state, at the same address.
    pub async fn restart_control(&mut self) {
        let control = control(&self.env, self.dir.path(), self.ready.mesh).await;
        self.control = Some(control);
        self.admin = AdminClient::connect(&self.env, &state(self.dir.path()))
            .await
            .unwrap();
    }

    /// A one-time token for a service of the default namespace.
    pub async fn token(&self, service: &str) -> String {
        let request = TokenRequest {
            namespace: "default".to_owned(),
            service: service.to_owned(),
            ttl_s: 600,
        };
        self.admin.create_token(&request).await.unwrap().token
    }

    /// Applies resources, and waits until every sidecar has them or has refused them.
    pub async fn apply(&self, yaml: &str) -> WaitReply {
        let resources = weft_resources::parse_yaml(yaml, "test").unwrap();
        let reply = self.admin.apply(&resources).await.unwrap();
        self.admin.wait(reply.revision, PATIENCE).await.unwrap()
    }

    /// As [`Mesh::apply`], where nobody may refuse.
    pub async fn push(&self, yaml: &str) {
        let reply = self.apply(yaml).await;
        assert!(reply.is_complete(), "not in force everywhere: {reply:?}");
    }

    /// Settings of a sidecar with a token, everything on free ports.
    pub async fn config(&self, service: &str, apps: &[AppPort]) -> (TempDir, SidecarConfig) {
        let dir = tempfile::tempdir().unwrap();
        let mut config =
            SidecarConfig::new(state(dir.path()), TrustDomain::parse("weft.local").unwrap());
        config.control = vec![self.ready.mesh.to_string()];
        config.pin = Some(self.ready.pin.parse().unwrap());
        config.token = TokenSource::Value(self.token(service).await);
        config.apps = apps.to_vec();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        (
            config.mesh_listen,
            config.outbound_listen,
            config.metrics_listen,
        ) = (any, any, any);
        config.ready_file = Some(dir.path().join("ready.json"));
        config.drain_deadline = Duration::from_secs(5);
        (dir, config)
    }

    /// A sidecar that serves.
    pub async fn sidecar(&self, service: &str, apps: &[AppPort]) -> Sidecar {
        let (dir, config) = self.config(service, apps).await;
        Sidecar::start(&self.env, dir, config).await
    }

    /// Waits until `from` knows this many instances of a service: a request that goes round meets all.
    pub async fn settle(&self) {
        let status = self.admin.status().await.unwrap();
        let reply = self
            .admin
            .wait(status.control.revision, PATIENCE)
            .await
            .unwrap();
        assert!(reply.is_complete(), "not in force everywhere: {reply:?}");
    }
}

fn state(dir: &Path) -> PathBuf {
    dir.join("state")
}

async fn control(env: &Env, dir: &Path, mesh: SocketAddr) -> Control {
    let mut config = ControlConfig::new(state(dir));
    config.mesh_listen = mesh;
    config.init_if_missing = Some(InitConfig::default());
    let file = dir.join("control-ready.json");
    config.ready_file = Some(file.clone());
    config.drain_deadline = Duration::from_millis(200);
    let attest = dir.join(ATTEST);
    config.attest = attest.exists().then_some(attest);
    let stop = CancellationToken::new();
    let (env, token) = (env.clone(), stop.clone());
    let task = tokio::spawn(async move { weft_control::run(&env, config, token).await });
    let ready = eventually("the control node is ready", || {
        assert!(
            !task.is_finished(),
            "the control node ended before it was ready"
        );
        let text = std::fs::read(&file).ok();
        async move { text.and_then(|text| serde_json::from_slice(&text).ok()) }
    })
    .await;
    Control { ready, stop, task }
}

/// A sidecar that runs, on a thread of its own: when it is killed, everything of it is gone at once.
pub struct Sidecar {
    pub ready: Ready,
    pub config: SidecarConfig,
    pub dir: TempDir,
    stop: CancellationToken,
    kill: CancellationToken,
    ended: oneshot::Receiver<Result<(), Error>>,
}

impl Sidecar {
    pub async fn start(env: &Env, dir: TempDir, config: SidecarConfig) -> Self {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        let mut ended = on_a_thread(env.clone(), config.clone(), stop.clone(), kill.clone());
        let file = config.ready_file.clone().expect("tests name one");
        let ready = eventually("the sidecar is ready", || {
            if let Ok(outcome) = ended.try_recv() {
                panic!("the sidecar ended before it was ready: {outcome:?}");
            }
            let text = std::fs::read(&file).ok();
            async move { text.and_then(|text| serde_json::from_slice(&text).ok()) }
        })
        .await;
        Self {
            ready,
            config,
            dir,
            stop,
            kill,
            ended,
        }
    }

    /// Stops it as SIGTERM does, and gives back what is needed to start it again.
    pub async fn stop(self) -> (TempDir, SidecarConfig) {
        self.stop.cancel();
        timeout(PATIENCE, self.ended)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        (self.dir, self.config)
    }

    /// Why it gave up by itself.
    pub async fn gives_up(self) -> String {
        let ended = timeout(PATIENCE, self.ended).await;
        let error = ended.expect("it ends").unwrap().unwrap_err();
        error.to_string()
    }

    /// Kills it: nothing is drained, nobody is told.
    pub async fn kill(self) -> (TempDir, SidecarConfig) {
        self.kill.cancel();
        let killed = timeout(PATIENCE, self.ended).await.unwrap();
        assert!(killed.is_err(), "it ended by itself");
        (self.dir, self.config)
    }
}

fn on_a_thread(
    env: Env,
    config: SidecarConfig,
    stop: CancellationToken,
    kill: CancellationToken,
) -> oneshot::Receiver<Result<(), Error>> {
    let (tell, ended) = oneshot::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = weft_proxy::run(&env, config, stop) => Some(outcome),
                () = kill.cancelled() => None,
            }
        });
        // Drops every task where it stands.
        drop(runtime);
        if let Some(outcome) = outcome {
            let _ = tell.send(outcome);
        }
    });
    ended
}

/// An HTTP port of an application, on service port 80.
pub fn http(addr: SocketAddr) -> AppPort {
    AppPort {
        protocol: Protocol::Http,
        port: 80,
        addr,
    }
}

/// A TCP port of an application, on service port 5432.
pub fn tcp(addr: SocketAddr) -> AppPort {
    AppPort {
        protocol: Protocol::Tcp,
        port: 5432,
        addr,
    }
}

/// A local port on loopback that leads to a service.
pub fn local(backend: &str) -> TcpListener {
    TcpListener {
        listen: "127.0.0.1:0".parse().unwrap(),
        backend: backend.to_owned(),
    }
}
