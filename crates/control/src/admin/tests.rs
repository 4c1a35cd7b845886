#![allow(clippy::disallowed_methods)]

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_env::{Env, JoinHandle};

use super::types::*;
use super::*;
use crate::state::InitConfig;
use crate::store::Txn;
use crate::{ControlConfig, ControlError, ControlReady, run};

const PROMPT: Duration = Duration::from_secs(30);

/// A control node in this process.
struct Running {
    dir: tempfile::TempDir,
    env: Env,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ControlError>>,
    ready: ControlReady,
}

fn config(state: PathBuf) -> ControlConfig {
    ControlConfig {
        mesh_listen: "127.0.0.1:0".parse().unwrap(),
        metrics_listen: Some("127.0.0.1:0".parse().unwrap()),
        ready_file: Some(state.with_file_name("ready.json")),
        init_if_missing: Some(InitConfig::default()),
        drain_deadline: Duration::from_millis(100),
        ..ControlConfig::new(state)
    }
}

impl Running {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path().join("state"));
        Self::start_with(dir, config).await
    }

    async fn start_with(dir: tempfile::TempDir, config: ControlConfig) -> Self {
        let env = Env::system();
        let ready_file = config.ready_file.clone().unwrap();
        let stop = CancellationToken::new();
        let (own, token) = (env.clone(), stop.clone());
        let task = env.spawn(async move { run(&own, config, token).await });
        let ready = timeout(PROMPT, async {
            let mut look = tokio::time::interval(Duration::from_millis(2));
            loop {
                look.tick().await;
                // The file appears whole or not at all.
                if let Ok(bytes) = std::fs::read(&ready_file) {
                    break serde_json::from_slice(&bytes).unwrap();
                }
                assert!(!task.is_finished(), "the control node ended early");
            }
        });
        let ready = ready.await.expect("ready in time");
        Self {
            dir,
            env,
            stop,
            task,
            ready,
        }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    async fn client(&self) -> AdminClient {
        AdminClient::connect(&self.env, &self.state())
            .await
            .unwrap()
    }

    async fn stop(self) -> tempfile::TempDir {
        self.stop.cancel();
        timeout(PROMPT, self.task).await.unwrap().unwrap().unwrap();
        self.dir
    }
}

fn route(timeout: &str) -> Value {
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

#[tokio::test]
async fn the_client_says_what_to_do_when_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    let error = AdminClient::connect(&Env::system(), dir.path())
        .await
        .unwrap_err();
    assert!(matches!(error, AdminError::NotRunning { .. }));
    let text = error.to_string();
    assert!(text.contains("no control node runs on"), "{text}");
    assert!(text.contains("weft control --state-dir"), "{text}");
}

#[tokio::test]
async fn a_stopped_node_leaves_no_socket_and_its_state_can_be_used_again() {
    let node = Running::start().await;
    node.client().await;
    let dir = node.stop().await;
    let state = dir.path().join("state");
    assert!(!state.join("control.sock").exists());
    assert!(!dir.path().join("ready.json").exists());
    let error = AdminClient::connect(&Env::system(), &state).await;
    assert!(matches!(error, Err(AdminError::NotRunning { .. })));
}

#[tokio::test]
async fn a_second_node_on_the_same_state_is_refused() {
    let node = Running::start().await;
    let second = run(&node.env, config(node.state()), CancellationToken::new()).await;
    let error = second.unwrap_err();
    assert!(matches!(error, ControlError::InUse { .. }), "{error}");
    assert_eq!(
        node.client().await.status().await.unwrap().control.pid,
        node.ready.pid
    );
    node.stop().await;
}

#[tokio::test]
async fn tokens_are_made_listed_and_refused_for_reserved_names() {
    let node = Running::start().await;
    let client = node.client().await;
    let mut request = TokenRequest {
        namespace: "default".into(),
        service: "invoices".into(),
        ttl_s: 600,
    };
    let created = client.create_token(&request).await.unwrap();
    assert_eq!(
        created.spiffe_id,
        "spiffe://weft.local/ns/default/sa/invoices"
    );
    assert_eq!(created.pin, node.ready.pin);
    assert!(!format!("{created:?}").contains(&created.token));
    let tokens = client.tokens().await.unwrap();
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].state, TokenState::Unused);
    assert_eq!(tokens[0].expires_unix, created.expires_unix);

    request.namespace = "weft-system".into();
    match client.create_token(&request).await {
        Err(AdminError::Refused(problem)) => assert_eq!(problem.code, "reserved_namespace"),
        other => panic!("{other:?}"),
    }
    node.stop().await;
}

#[tokio::test]
async fn resources_are_applied_read_and_deleted() {
    let node = Running::start().await;
    let client = node.client().await;
    let reply = client.apply(&[route("10s")]).await.unwrap();
    assert_eq!(reply.changes[0].action, Action::Created);
    let list = client.resources(&ResourceFilter::default()).await.unwrap();
    assert_eq!(list.resources[0].revision, reply.revision);
    assert_eq!(list.resources[0].key, "HTTPRoute/default/invoices");
    let other = ResourceFilter {
        kind: Some("AuthorizationPolicy".into()),
        ..ResourceFilter::default()
    };
    assert!(client.resources(&other).await.unwrap().resources.is_empty());

    let error = client.apply(&[route("soon")]).await.unwrap_err();
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    let error = client.delete("Nonsense", "default", "x").await.unwrap_err();
    assert!(matches!(error, AdminError::Refused(_)), "{error}");
    let gone = client.delete("HTTPRoute", "default", "invoices").await;
    assert_eq!(gone.unwrap().changes[0].action, Action::Deleted);
    node.stop().await;
}

#[tokio::test]
async fn without_sidecars_a_wait_is_over_at_once_and_a_rotation_too() {
    let node = Running::start().await;
    let client = node.client().await;
    let reply = client.wait(1, PROMPT).await.unwrap();
    assert!(reply.is_complete());

    let before = client.ca().await.unwrap();
    let mut stream = client.rotate_ca(&RotateCa::default()).await.unwrap();
    let mut last = None;
    while let Some(progress) = timeout(PROMPT, stream.next()).await.unwrap().unwrap() {
        last = Some(progress);
    }
    let last = last.unwrap();
    assert_eq!((last.phase, last.finished), (Phase::Done, true), "{last:?}");
    assert_ne!(last.issuer_before, last.issuer_after);

    let after = client.ca().await.unwrap();
    assert_eq!(after.pin, before.pin, "the root stays");
    let state_of = |info: &CaInfo, serial: &Option<String>| {
        let slot = info
            .authorities
            .iter()
            .find(|a| Some(&a.serial) == serial.as_ref());
        slot.map(|slot| slot.state.clone())
    };
    assert_eq!(
        state_of(&after, &last.issuer_before).as_deref(),
        Some("removed")
    );
    assert_eq!(
        state_of(&after, &last.issuer_after).as_deref(),
        Some("active")
    );
    let keys = std::fs::read_dir(node.state().join("ca")).unwrap().count();
    assert_eq!(keys, 2, "the old issuing key is gone");

    let missing = RotateCerts {
        instances: vec!["nobody".into()],
        ..RotateCerts::default()
    };
    let error = client.rotate_certs(&missing).await.err().unwrap();
    assert!(error.to_string().contains("nobody"), "{error}");
    node.stop().await;
}

#[tokio::test]
async fn a_rotation_that_a_crash_cut_off_is_finished_after_the_restart() {
    let dir = tempfile::tempdir().unwrap();
    let env = Env::system();
    let path = dir.path().join("state");
    crate::init(&env, &path, &InitConfig::default())
        .await
        .unwrap();
    {
        // Asked for, and nothing of it done; what comes in between is in `issue::crash_tests`.
        let held = crate::state::hold(&env, &path, crate::KeyAccess::default())
            .await
            .unwrap();
        let opened = held.open(&env).await.unwrap();
        let plan = json!({
            "number": 1, "tier": "issuing", "started_unix_ms": 1, "now": false,
            "allow_missing": false, "old": [],
        });
        let txn = Txn::new().put("ca/rotation", plan.to_string());
        opened.store.commit(txn).await.unwrap();
    }
    let mut config = config(path.clone());
    config.grace = Duration::from_millis(10);
    let node = Running::start_with(dir, config).await;
    let client = node.client().await;
    let states = timeout(PROMPT, async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let info = client.ca().await.unwrap();
            let states: Vec<String> = info.authorities.into_iter().map(|a| a.state).collect();
            if !client.evidence().await.unwrap().is_empty() {
                break states;
            }
        }
    });
    let states = states.await.expect("the evidence is there in time");
    assert_eq!(states, ["active", "removed", "active"]);
    node.stop().await;
}

#[tokio::test]
async fn status_ca_and_metrics_describe_the_node() {
    let node = Running::start().await;
    let client = node.client().await;
    let status = client.status().await.unwrap();
    assert_eq!(status.control.trust_domain, "weft.local");
    assert_eq!(status.control.pin, node.ready.pin);
    assert_eq!(status.control.mesh_addr, node.ready.mesh);
    assert!(status.control.certificate_seconds_left > 3500);
    assert!(status.sidecars.is_empty());
    assert!(client.edges().await.unwrap().edges.is_empty());

    for (path, word) in [
        ("/healthz", "200 OK"),
        ("/readyz", "200 OK"),
        ("/metrics", "weft_config_revision"),
        ("/other", "404 Not Found"),
    ] {
        let reply = raw(
            &node,
            &format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"),
        )
        .await;
        assert!(reply.contains(word), "{path}: {reply}");
    }
    node.stop().await;
}

/// Bytes to the metrics port and all that comes back.
async fn raw(node: &Running, request: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let addr = node.ready.metrics.unwrap();
    let mut stream = node.env.connect(addr).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    timeout(PROMPT, stream.read_to_string(&mut reply))
        .await
        .unwrap()
        .unwrap();
    reply
}

#[tokio::test]
async fn malformed_requests_get_a_problem_with_a_sentence() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = Running::start().await;
    for (request, status, code) in [
        ("GET /v1/nothing HTTP/1.1", "404", "no_such_path"),
        ("PUT /v1/status HTTP/1.1", "404", "no_such_path"),
        ("GET /v1/wait?revision=x HTTP/1.1", "400", "bad_query"),
        ("GET /v1/resources?colour=red HTTP/1.1", "400", "bad_query"),
        ("GET /v1/status?a=%zz HTTP/1.1", "400", "bad_query"),
        (
            "POST /v1/apply HTTP/1.1\r\ncontent-length: 1",
            "400",
            "bad_request",
        ),
        (
            "POST /v1/apply HTTP/1.1\r\ncontent-length: 99999999999",
            "413",
            "too_large",
        ),
    ] {
        let socket = node.state().join("control.sock");
        let mut stream = node.env.connect_unix(&socket).await.unwrap();
        let text = format!("{request}\r\nhost: x\r\nconnection: close\r\n\r\n{{");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut reply = String::new();
        timeout(PROMPT, stream.read_to_string(&mut reply))
            .await
            .unwrap()
            .unwrap();
        assert!(
            reply.starts_with(&format!("HTTP/1.1 {status}")),
            "{request}: {reply}"
        );
        assert!(
            reply.contains(&format!("\"code\":\"{code}\"")),
            "{request}: {reply}"
        );
    }
    node.stop().await;
}

#[tokio::test]
async fn the_ready_directory_must_be_a_state_unless_told_to_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(dir.path().join("state"));
    config.init_if_missing = None;
    let error = run(&Env::system(), config, CancellationToken::new())
        .await
        .unwrap_err();
    assert!(
        matches!(error, ControlError::NotInitialised { .. }),
        "{error}"
    );
    assert!(error.to_string().contains("weft init --state-dir"));
    assert!(!dir.path().join("state").exists(), "nothing was made");
}
