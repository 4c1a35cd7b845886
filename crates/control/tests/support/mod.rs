//! A control node in this process, and sidecars that speak its protocol over the real transport.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "shared by several test programs, each of which uses a part"
)]

pub mod sidecar;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_certs::RootPin;
use weft_control::{
    AdminClient, ControlConfig, ControlError, ControlReady, InitConfig, TokenRequest, run,
};
use weft_env::{Env, JoinHandle, Tasks};

/// Whatever a test waits for happens within this time, or the test fails.
pub const PROMPT: Duration = Duration::from_secs(30);

/// A control node.
pub struct Control {
    pub env: Env,
    /// Owner of the sidecars' tasks.
    pub tasks: Tasks,
    pub ready: ControlReady,
    dir: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ControlError>>,
}

impl Control {
    pub async fn start() -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), "127.0.0.1:0", |_| {}).await
    }

    pub async fn start_with(adjust: impl FnOnce(&mut ControlConfig)) -> Self {
        Self::start_on(tempfile::tempdir().unwrap(), "127.0.0.1:0", adjust).await
    }

    pub async fn start_on(
        dir: tempfile::TempDir,
        listen: &str,
        adjust: impl FnOnce(&mut ControlConfig),
    ) -> Self {
        let env = Env::system();
        let mut config = ControlConfig::new(dir.path().join("state"));
        config.mesh_listen = listen.parse().unwrap();
        config.ready_file = Some(dir.path().join("ready.json"));
        config.init_if_missing = Some(InitConfig::default());
        config.drain_deadline = Duration::from_millis(200);
        adjust(&mut config);
        let ready_file = config.ready_file.clone().unwrap();
        // That of a crash before.
        let _ = std::fs::remove_file(&ready_file);
        let stop = CancellationToken::new();
        let (own, token) = (env.clone(), stop.clone());
        let mut task = env.spawn(async move { run(&own, config, token).await });
        let ready = timeout(PROMPT, async {
            let mut look = tokio::time::interval(Duration::from_millis(2));
            loop {
                look.tick().await;
                // The file appears whole or not at all.
                if let Ok(bytes) = std::fs::read(&ready_file) {
                    break serde_json::from_slice(&bytes).unwrap();
                }
                if task.is_finished() {
                    panic!("the control node ended early: {:?}", (&mut task).await);
                }
            }
        });
        let ready = ready.await.expect("ready in time");
        Self {
            tasks: Tasks::new(&env),
            env,
            ready,
            dir,
            stop,
            task,
        }
    }

    pub fn pin(&self) -> RootPin {
        RootPin::parse(&self.ready.pin).unwrap()
    }

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub async fn client(&self) -> AdminClient {
        AdminClient::connect(&self.env, &self.state())
            .await
            .unwrap()
    }

    pub async fn token(&self, service: &str, ttl_s: u64) -> String {
        let request = TokenRequest {
            namespace: "default".into(),
            service: service.into(),
            ttl_s,
        };
        let created = self.client().await.create_token(&request).await;
        created.unwrap().token
    }

    /// Ends the node; its state directory stays.
    pub async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        let ended = timeout(PROMPT, self.task).await;
        ended.expect("the node stops in time").unwrap().unwrap();
        self.dir
    }

    /// As a crash does: nothing is ended in order.
    pub async fn crash(self) -> tempfile::TempDir {
        self.task.abort();
        let _ = timeout(PROMPT, self.task).await;
        // A process would be gone now; of a task, others hold store and port a moment longer.
        let store = std::fs::File::open(self.dir.path().join("state/store.redb")).unwrap();
        let free =
            || store.try_lock().is_ok() && std::net::UdpSocket::bind(self.ready.mesh).is_ok();
        timeout(PROMPT, async {
            let mut look = tokio::time::interval(Duration::from_millis(2));
            while !free() {
                look.tick().await;
            }
        })
        .await
        .expect("store and port are let go");
        self.dir
    }
}

/// A route with this timeout.
pub fn route(timeout: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "invoices"},
        "spec": {
            "parentRefs": [{"kind": "Service", "group": "", "name": "invoices"}],
            "rules": [{"timeouts": {"request": timeout}}]
        }
    })
}
