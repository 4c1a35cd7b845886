//! Joining, config, rotation and the loss of the control node.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Method;
use support::apps::{HttpApp, Manner, TcpApp};
use support::client::{Caller, get};
use support::faulty::Faulty;
use support::{
    Mesh, ORDERS_MAY, PATIENCE, Sidecar, eventually, http, local, outbound_listener, tcp,
    timeout_route,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_control::{RotateCa, RotateCerts};
use weft_env::Env;
use weft_proxy::TokenSource;

/// The error of a sidecar that must not start.
async fn refused(mesh: &Mesh, change: impl FnOnce(&mut weft_proxy::SidecarConfig)) -> String {
    let (dir, mut config) = mesh.config("orders", &[]).await;
    change(&mut config);
    let run = weft_proxy::run(&mesh.env, config, CancellationToken::new());
    let error = timeout(PATIENCE, run).await.unwrap().unwrap_err();
    assert!(
        !dir.path().join("state/svid.pem").exists(),
        "nothing was saved"
    );
    error.to_string()
}

#[tokio::test]
async fn who_cannot_join_is_told_why_and_what_to_do() {
    let mesh = Mesh::start().await;
    let used = mesh.token("orders").await;
    let (dir, mut config) = mesh.config("orders", &[]).await;
    config.token = TokenSource::Value(used.clone());
    Sidecar::start(&mesh.env, dir, config).await.stop().await;

    let error = refused(&mesh, |config| config.token = TokenSource::Value(used)).await;
    assert!(error.contains("used"), "{error}");
    let error = refused(&mesh, |config| {
        config.token = TokenSource::Value("weft-join-nonsense".into())
    })
    .await;
    assert!(error.contains("refused"), "{error}");
    let error = refused(&mesh, |config| config.token = TokenSource::None).await;
    assert!(error.contains("weft token create"), "{error}");
    let error = refused(&mesh, |config| config.pin = None).await;
    assert!(error.contains("--pin"), "{error}");
    let wrong = format!("sha256:{}", "00".repeat(32)).parse().unwrap();
    let error = refused(&mesh, |config| config.pin = Some(wrong)).await;
    assert!(
        error.contains("pin") && error.contains("token was not sent"),
        "{error}"
    );
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let addr = silent.local_addr().unwrap().to_string();
    let error = refused(&mesh, |config| config.control = vec![addr]).await;
    assert!(error.contains("no control node can be reached"), "{error}");
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = busy.local_addr().unwrap();
    let error = refused(&mesh, |config| config.outbound_listen = taken).await;
    assert!(error.contains("address in use"), "{error}");
}

#[tokio::test]
async fn config_that_a_sidecar_cannot_use_is_nacked_and_the_running_config_stays() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let _invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(&format!("{ORDERS_MAY}---\n{}", timeout_route("300ms")))
        .await;

    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let broken = outbound_listener(busy.local_addr().unwrap(), 5432);
    let reply = mesh
        .apply(&format!("{broken}---\n{}", timeout_route("60s")))
        .await;
    assert_eq!(reply.nacks.len(), 1, "{reply:?}");
    let nack = &reply.nacks[0];
    assert_eq!(nack.service, "orders.default");
    assert_eq!(
        nack.key.as_deref(),
        Some("OutboundListener/default/to-invoices")
    );
    assert!(nack.reason.contains("address in use"), "{nack:?}");
    let timed_out = get(orders.ready.outbound, "invoices", "/hang").await;
    assert_eq!(
        timed_out.status, 504,
        "the timeout before is still in force"
    );

    // Discovery is not held hostage by it.
    let other = HttpApp::start("b").await;
    let _more = mesh.sidecar("invoices", &[http(other.addr)]).await;
    eventually("the new instance is in use", || async {
        get(orders.ready.outbound, "invoices", "/echo").await;
        (other.hits.load(Ordering::SeqCst) > 0).then_some(())
    })
    .await;

    let healed = mesh
        .admin
        .delete("OutboundListener", "default", "to-invoices")
        .await
        .unwrap();
    let reply = mesh.admin.wait(healed.revision, PATIENCE).await.unwrap();
    assert!(reply.is_complete(), "{reply:?}");
}

#[tokio::test]
async fn a_push_changes_new_requests_and_leaves_those_under_way() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let _invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(&format!("{ORDERS_MAY}---\n{}", timeout_route("2s")))
        .await;
    let outbound = orders.ready.outbound;
    let began = tokio::time::Instant::now();
    let old = tokio::spawn(async move { get(outbound, "invoices", "/hang").await });
    eventually("it is under way", || async {
        (app.hanging.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    mesh.push(&timeout_route("200ms")).await;
    let began_new = tokio::time::Instant::now();
    assert_eq!(get(outbound, "invoices", "/hang").await.status, 504);
    assert!(began_new.elapsed() < Duration::from_secs(1));
    assert_eq!(old.await.unwrap().status, 504);
    assert!(
        began.elapsed() >= Duration::from_millis(1990),
        "by the rule that it began with"
    );
}

/// Calls without a pause until told to stop; gives the failures and the number of calls.
fn load(
    outbound: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
) -> tokio::task::JoinHandle<(Vec<String>, usize)> {
    tokio::spawn(async move {
        let mut caller = Caller::connect(outbound, "invoices").await;
        let (mut failures, mut calls) = (Vec::new(), 0);
        while !stop.load(Ordering::SeqCst) {
            calls += 1;
            match caller.call(Method::POST, "/echo").await {
                Ok((status, _)) if status == 200 => {}
                Ok((status, text)) => failures.push(format!("{status}: {text}")),
                Err(error) => {
                    failures.push(error);
                    caller = Caller::connect(outbound, "invoices").await;
                }
            }
        }
        (failures, calls)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaves_and_issuing_ca_rotate_under_load_without_a_failed_request() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let _invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(ORDERS_MAY).await;
    let stop = Arc::new(AtomicBool::new(false));
    let calls: Vec<_> = (0..4)
        .map(|_| load(orders.ready.outbound, Arc::clone(&stop)))
        .collect();

    let before = serials(&mesh).await;
    let leaves = mesh
        .admin
        .rotate_certs(&RotateCerts::default())
        .await
        .unwrap();
    finished(leaves).await;
    let between = serials(&mesh).await;
    let issuing = mesh.admin.rotate_ca(&RotateCa::default()).await.unwrap();
    finished(issuing).await;
    let after = serials(&mesh).await;
    for (name, n) in [("leaves", 0), ("issuing CA", 1)] {
        let (one, other) = if n == 0 {
            (&before, &between)
        } else {
            (&between, &after)
        };
        assert!(
            one.iter().all(|serial| !other.contains(serial)),
            "{name}: {one:?} {other:?}"
        );
    }
    stop.store(true, Ordering::SeqCst);
    for calls in calls {
        let (failures, calls) = calls.await.unwrap();
        assert!(calls > 10, "there was load");
        assert!(failures.is_empty(), "of {calls}: {failures:?}");
    }
}

async fn finished(mut progress: weft_control::ProgressStream) {
    while let Some(line) = timeout(PATIENCE, progress.next()).await.unwrap().unwrap() {
        if line.finished {
            assert_eq!(line.message, None, "{line:?}");
            return;
        }
    }
    panic!("the rotation ended without a last line");
}

async fn serials(mesh: &Mesh) -> Vec<String> {
    let status = mesh.admin.status().await.unwrap();
    status
        .sidecars
        .into_iter()
        .map(|sidecar| sidecar.serial)
        .collect()
}

#[tokio::test]
async fn traffic_goes_on_without_control_node_and_a_sidecar_restarts_from_what_it_saved() {
    let mut mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let _invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(ORDERS_MAY).await;
    mesh.stop_control().await;
    assert_eq!(
        get(orders.ready.outbound, "invoices", "/echo").await.status,
        200
    );

    let (dir, mut config) = orders.stop().await;
    config.token = TokenSource::None;
    let orders = Sidecar::start(&mesh.env, dir, config).await;
    let reply = get(orders.ready.outbound, "invoices", "/echo").await;
    assert_eq!(
        reply.status,
        200,
        "from the saved snapshot: {:?}",
        reply.all("proxy-status")
    );

    mesh.restart_control().await;
    eventually("both sidecars are back", || async {
        let status = mesh.admin.status().await.ok()?;
        let live = status
            .sidecars
            .iter()
            .filter(|s| s.state == weft_control::SidecarState::Live);
        (live.count() == 2).then_some(())
    })
    .await;
    mesh.push(&timeout_route("200ms")).await;
    assert_eq!(
        get(orders.ready.outbound, "invoices", "/hang").await.status,
        504
    );
}

#[tokio::test]
async fn metrics_and_readiness_are_on_the_local_port() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(ORDERS_MAY).await;
    get(orders.ready.outbound, "invoices", "/echo").await;
    for (sidecar, reporter) in [(&orders, "source"), (&invoices, "destination")] {
        let ready = get(sidecar.ready.metrics, "localhost", "/readyz").await;
        assert_eq!(ready.status, 200);
        let wanted =
            format!("weft_requests_total{{reporter=\"{reporter}\",source_workload=\"orders\"");
        eventually("the request is counted", || async {
            let metrics = get(sidecar.ready.metrics, "localhost", "/metrics").await;
            metrics.text().contains(&wanted).then_some(())
        })
        .await;
    }
    eventually("the control node knows the edge", || async {
        let edges = mesh.admin.edges().await.unwrap();
        let text = serde_json::to_string(&edges).unwrap();
        (text.contains("orders.default") && text.contains("invoices.default")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_stopped_sidecar_ends_its_requests_and_takes_no_new_ones() {
    let mesh = Mesh::start().await;
    let (one, two) = (HttpApp::start("one").await, HttpApp::start("two").await);
    let _one = mesh.sidecar("invoices", &[http(one.addr)]).await;
    let leaving = mesh.sidecar("invoices", &[http(two.addr)]).await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(ORDERS_MAY).await;
    let outbound = orders.ready.outbound;
    let enough = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&enough);
    let load = tokio::spawn(async move {
        let mut statuses = Vec::new();
        while !told.load(Ordering::SeqCst) {
            statuses.push(get(outbound, "invoices", "/echo").await.status.as_u16());
        }
        statuses
    });
    eventually("the leaving one is in use", || async {
        (two.hits.load(Ordering::SeqCst) > 3).then_some(())
    })
    .await;
    leaving.stop().await;
    enough.store(true, Ordering::SeqCst);
    let statuses = load.await.unwrap();
    assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
}

#[tokio::test]
async fn a_pushed_listener_opens_and_closes_without_a_restart() {
    let mesh = Mesh::start().await;
    let app = TcpApp::start(Manner::EchoAtEnd).await;
    let _invoices = mesh.sidecar("invoices", &[tcp(app.addr)]).await;
    let _orders = mesh.sidecar("orders", &[]).await;
    mesh.push(ORDERS_MAY).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    mesh.push(&outbound_listener(free, 5432)).await;
    let mut stream = TcpStream::connect(free).await.unwrap();
    stream.write_all(b"through").await.unwrap();
    let kept = stream;
    let deleted = mesh
        .admin
        .delete("OutboundListener", "default", "to-invoices")
        .await
        .unwrap();
    let reply = mesh.admin.wait(deleted.revision, PATIENCE).await.unwrap();
    assert!(reply.is_complete(), "{reply:?}");
    assert!(
        TcpStream::connect(free).await.is_err(),
        "the port is closed"
    );
    let mut kept = kept;
    kept.shutdown().await.unwrap();
    assert_eq!(
        read_all(&mut kept).await,
        b"through",
        "a connection outlives its port"
    );
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    read.expect("an end in time").unwrap();
    all
}

#[tokio::test]
async fn a_service_that_was_down_before_this_sidecar_came_is_503_and_a_name_never_heard_of_404() {
    let mut mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    mesh.push(ORDERS_MAY).await;
    drop(invoices.stop().await);
    // Nor does a restart of the control node forget it.
    mesh.stop_control().await;
    mesh.restart_control().await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.settle().await;
    let reply = get(orders.ready.outbound, "invoices", "/echo").await;
    assert_eq!(reply.status, 503, "{reply:?}");
    let said = reply.all("proxy-status").join(", ");
    assert!(said.contains("error=destination_unavailable"), "{said}");
    let reply = get(orders.ready.outbound, "invoice", "/echo").await;
    assert_eq!(reply.status, 404, "{reply:?}");
    let (dir, mut config) = orders.stop().await;
    config.token = TokenSource::None;
    mesh.stop_control().await;
    let orders = Sidecar::start(&mesh.env, dir, config).await;
    let reply = get(orders.ready.outbound, "invoices", "/echo").await;
    assert_eq!(reply.status, 503, "nor a restart of the sidecar: {reply:?}");
}

#[tokio::test]
async fn what_policy_refuses_is_no_success_of_an_edge() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let _invoices = mesh
        .sidecar("invoices", &[http(app.addr), tcp(app.addr)])
        .await;
    let (dir, mut config) = mesh.config("orders", &[]).await;
    config.tcp_listeners = vec![local("invoices:5432")];
    let orders = Sidecar::start(&mesh.env, dir, config).await;
    mesh.settle().await;
    assert_eq!(
        get(orders.ready.outbound, "invoices", "/").await.status,
        403
    );
    let mut stream = TcpStream::connect(orders.ready.tcp[0]).await.unwrap();
    let mut said = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .unwrap();
    assert!(said.is_empty(), "it is cut");
    let edges = eventually("both sides to tell of both", || async {
        let edges = mesh.admin.edges().await.unwrap().edges;
        (edges.len() == 4).then_some(edges)
    })
    .await;
    for edge in edges {
        assert_eq!((edge.requests, edge.failures), (1, 1), "{edge:?}");
    }
}

#[tokio::test]
async fn a_sidecar_that_lost_an_essential_part_gives_up_and_says_which() {
    let mesh = Mesh::start().await;
    let (dir, mut config) = mesh.config("orders", &[]).await;
    config.drain_deadline = Duration::from_millis(100);
    let machine = Arc::new(Faulty::default());
    let orders = Sidecar::start(&Env::new(machine.clone()), dir, config).await;
    machine.broken.store(true, Ordering::SeqCst);
    let said = orders.gives_up().await;
    // Whichever of them asks for the time first; others end with it.
    for part in ["has stopped working (", "start it again"] {
        assert!(said.contains(part), "{said}");
    }
}

#[tokio::test]
async fn a_control_node_that_lost_an_essential_part_gives_up_and_says_which() {
    let machine = Arc::new(Faulty::default());
    let mesh = Mesh::start_on(Env::new(machine.clone())).await;
    machine.broken.store(true, Ordering::SeqCst);
    let said = mesh.control_gives_up().await;
    assert!(
        said.contains("the clock is broken") && said.contains("start it again"),
        "{said}"
    );
}

#[tokio::test]
async fn what_cannot_be_saved_is_told_and_saved_once_it_can_be() {
    let mesh = Mesh::start().await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(ORDERS_MAY).await;
    let file = orders.config.state_dir.join("snapshot.json");
    let unsaved = || async {
        let status = mesh.admin.status().await.ok()?;
        Some(status.sidecars.first()?.unsaved.clone())
    };
    assert_eq!(unsaved().await, Some(None));
    // A directory in the file's place stands for a disk that takes nothing.
    std::fs::remove_file(&file).unwrap();
    std::fs::create_dir_all(file.join("in-the-way")).unwrap();
    let reply = mesh.apply(&timeout_route("200ms")).await;
    let receipt = reply.receipts[0].unsaved.as_deref();
    assert!(
        reply.is_complete() && receipt.is_some_and(|reason| reason.contains("snapshot.json")),
        "the receipt says it: {reply:?}"
    );
    let gauge = async || {
        let metrics = get(orders.ready.metrics, "localhost", "/metrics").await;
        let line = |line: &&str| line.starts_with("weft_config_unsaved ");
        let found = metrics.text().lines().find(line).map(str::to_owned);
        found.expect("there is a gauge")
    };
    assert_eq!(gauge().await, "weft_config_unsaved 1");
    let reason = eventually("the control node to hear of it", || async {
        unsaved().await?
    })
    .await;
    assert!(reason.contains("snapshot.json"), "{reason}");
    std::fs::remove_dir_all(&file).unwrap();
    eventually("it to be saved", || async {
        unsaved().await?.is_none().then_some(())
    })
    .await;
    assert!(std::fs::read_to_string(&file).unwrap().contains("200ms"));
    assert_eq!(gauge().await, "weft_config_unsaved 0");
}
