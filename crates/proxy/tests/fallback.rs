//! Sidecars between which no UDP passes: requests, tunnels and the link to the control node go over TCP.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

#[path = "../../../tests/support/environment.rs"]
mod environment;
mod support;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use http::Request;
use http_body_util::Full;
use support::access;
use support::apps::{CUT_AT_ONCE, Ending, HttpApp, Manner, RawApp, TcpApp};
use support::client::{assert_cut, get, send};
use support::middlebox::Middlebox;
use support::offline::Offline;
use support::{Mesh, ORDERS_MAY, PATIENCE, Sidecar, eventually, http, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use weft_proxy::AppPort;

/// `orders`, a stranger, and `invoices` behind a box that lets no UDP pass.
async fn apart(ports: &[AppPort]) -> (Vec<Sidecar>, Middlebox) {
    let mesh = Offline::new().instance("invoices", ports);
    let (mesh, middlebox) = mesh.behind_a_middlebox().await;
    let mesh = mesh.instance("orders", &[]).instance("stranger", &[]);
    (mesh.start(ORDERS_MAY).await, middlebox)
}

async fn metrics(sidecar: &Sidecar) -> String {
    let reply = get(sidecar.ready.metrics, "localhost", "/metrics").await;
    reply.text().to_owned()
}

/// Waits until the sidecar's metrics have this line.
async fn shows(sidecar: &Sidecar, line: &str) {
    eventually(line, || async {
        let text = metrics(sidecar).await;
        text.lines().any(|l| l == line).then_some(())
    })
    .await;
}

#[tokio::test]
async fn requests_pass_with_the_same_proof_and_the_same_refusals() {
    let app = HttpApp::start("a").await;
    let (sidecars, middlebox) = apart(&[http(app.addr)]).await;
    let (invoices, orders, stranger) = (&sidecars[0], &sidecars[1], &sidecars[2]);
    let body = "x".repeat(100_000);
    let request = Request::post("http://invoices/echo?x=%61")
        .header("x-forwarded-client-cert", "URI=spiffe://weft.local/admin")
        .body(Full::from(body))
        .unwrap();
    let reply = send(orders.ready.outbound, request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let echo = reply.json();
    let headers = &echo["headers"];
    assert_eq!(echo["target"], "/echo?x=%61");
    assert_eq!(headers["host"], "invoices.default");
    assert_eq!(headers["via"], "1.1 orders.default, 2 invoices.default");
    let xfcc = headers["x-forwarded-client-cert"].as_str().unwrap();
    assert!(xfcc.starts_with("By=spiffe://weft.local/ns/default/sa/invoices;Hash="));
    assert!(xfcc.ends_with(";URI=spiffe://weft.local/ns/default/sa/orders"));

    let reply = get(stranger.ready.outbound, "invoices", "/echo").await;
    assert_eq!(reply.status, 403);
    let said = reply.all("proxy-status");
    assert!(said[0].starts_with("invoices.default/inbound; error=http_request_denied"));

    shows(
        orders,
        "weft_connections{direction=\"outbound\",transport=\"tcp\"} 1",
    )
    .await;
    shows(
        orders,
        "weft_connections{direction=\"outbound\",transport=\"quic\"} 0",
    )
    .await;
    shows(orders, "weft_fallbacks_total{event=\"to_tcp\"} 1").await;
    shows(orders, "weft_fallback_paths 1").await;
    shows(
        invoices,
        "weft_connections{direction=\"inbound\",transport=\"tcp\"} 2",
    )
    .await;

    middlebox.let_udp_pass(true);
    shows(
        orders,
        "weft_connections{direction=\"outbound\",transport=\"tcp\"} 0",
    )
    .await;
    shows(orders, "weft_fallbacks_total{event=\"to_quic\"} 1").await;
    let reply = get(orders.ready.outbound, "invoices", "/echo").await;
    let via = reply.json()["headers"]["via"].clone();
    assert_eq!(via, "1.1 orders.default, 3 invoices.default");
}

async fn connect(addr: std::net::SocketAddr) -> TcpStream {
    let connected = timeout(PATIENCE, TcpStream::connect(addr)).await;
    connected.unwrap().unwrap()
}

#[tokio::test]
async fn a_mebibyte_each_way_half_closed_in_turn_is_unchanged() {
    let mut app = TcpApp::start(Manner::EchoAtEnd).await;
    let (sidecars, _middlebox) = apart(&[tcp(app.addr)]).await;
    let sent: Vec<u8> = (0..1 << 20_u32).map(|n| (n * 7 + n / 251) as u8).collect();
    let mut stream = connect(sidecars[1].ready.tcp[0]).await;
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    let read = timeout(PATIENCE, stream.read_to_end(&mut back)).await;
    read.unwrap().unwrap();
    assert!(back == sent, "what came back is what was sent");
    let (ending, received) = app.ended.recv().await.unwrap();
    assert_eq!(ending, Ending::Clean);
    assert!(received == sent);
}

#[tokio::test]
async fn resets_pass_in_both_directions() {
    let app = TcpApp::start(Manner::Reset).await;
    let (sidecars, _middlebox) = apart(&[tcp(app.addr)]).await;
    let mut stream = connect(sidecars[1].ready.tcp[0]).await;
    stream.write_all(b"x").await.unwrap();
    let read = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    let error = read.unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);

    let mut app = TcpApp::start(Manner::Listen).await;
    let (sidecars, _middlebox) = apart(&[tcp(app.addr)]).await;
    let mut stream = connect(sidecars[1].ready.tcp[0]).await;
    stream.write_all(b"some").await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let (ending, _) = timeout(PATIENCE, app.ended.recv()).await.unwrap().unwrap();
    assert_eq!(ending, Ending::Reset);
}

#[tokio::test]
async fn the_head_of_a_response_that_breaks_off_at_once_arrives() {
    access::keep();
    for (n, answer) in CUT_AT_ONCE.into_iter().enumerate() {
        let app = RawApp::start(answer).await;
        let (sidecars, _middlebox) = apart(&[http(app.addr)]).await;
        for round in 0..20 {
            let id = format!("cut-{n}-{round}");
            assert_cut(&sidecars[1], &id).await;
            for side in ["outbound", "inbound"] {
                let entry = access::entry(&id, side).await;
                assert_eq!(entry["code"], 200, "{entry}");
                assert_eq!(entry["transport"], "tcp", "{entry}");
                assert!(
                    entry["reason"].as_str().unwrap().contains("broke off"),
                    "{entry}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_site_without_udp_joins_is_pushed_to_and_says_so() {
    let mesh = Mesh::start().await;
    let middlebox = Middlebox::before(mesh.ready.mesh).await;
    let (dir, mut config) = mesh.config("orders", &[]).await;
    config.control = vec![middlebox.addr().to_string()];
    let orders = Sidecar::start(&mesh.env, dir, config).await;
    mesh.push(ORDERS_MAY).await;
    let seen = || async {
        let status = mesh.admin.status().await.unwrap();
        let sidecar = status
            .sidecars
            .into_iter()
            .find(|s| !s.transport.is_empty());
        sidecar.map(|sidecar| sidecar.transport)
    };
    assert_eq!(eventually("a report", seen).await, "tcp");
    middlebox.let_udp_pass(true);
    eventually("the link to move to QUIC", || async {
        (seen().await? == "quic").then_some(())
    })
    .await;
    orders.stop().await;
}

/// The Python that runs `interop/hbone.py`; `None` when it cannot be had, and this is not CI.
fn python() -> Option<&'static Path> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        let list = include_str!("interop/requirements.txt");
        environment::made_once("h2", list, "bin/python", |place| {
            let list = interop("requirements.txt").display().to_string();
            environment::pip_install(place, &["-r", &list])?;
            Ok(place.to_owned())
        })
    });
    environment::or_skip(&PYTHON, "environment for another HTTP/2 stack")
}

fn interop(file: &str) -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop");
    tests.join(file)
}

/// Everything that a sidecar answers over TCP, seen by a stack that shares no code with it: tunnels as HBONE has them,
/// what is refused and how, who is not let in, and attacks.
#[tokio::test]
async fn another_stack_speaks_hbone_and_is_held_to_the_same_rules() {
    let Some(python) = python() else { return };
    let app = TcpApp::start(Manner::EchoAtEnd).await;
    let ports = tcp(app.addr);
    let number = ports.port.to_string();
    let (mesh, dir) = (Offline::new(), tempfile::tempdir().unwrap());
    let files = [
        ("--roots", mesh.roots(dir.path())),
        ("--certificate", mesh.credentials("orders", dir.path())),
        ("--stranger", mesh.credentials("stranger", dir.path())),
        (
            "--foreigner",
            Offline::of("other.example").credentials("orders", dir.path()),
        ),
    ];
    let mesh = mesh.instance("invoices", &[ports]);
    let sidecars = mesh.start(ORDERS_MAY).await;
    let mut command = tokio::process::Command::new(python);
    // `-B`: nothing compiled is left among the sources.
    command.arg("-B").arg(interop("hbone.py"));
    command.args([
        "--addr",
        &sidecars[0].ready.mesh.to_string(),
        "--port",
        &number,
    ]);
    for (flag, file) in files {
        command.arg(flag).arg(file);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    let output = timeout(PATIENCE * 2, command.output())
        .await
        .unwrap()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success() && text(&output.stdout).contains("all checks passed"),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    for reason in ["no_certificate", "unknown_trust_domain"] {
        let line = format!("weft_refusals_total{{side=\"inbound\",reason=\"{reason}\"}} 1");
        shows(&sidecars[0], &line).await;
    }
}
