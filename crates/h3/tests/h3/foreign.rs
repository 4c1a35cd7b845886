//! Against stacks that share no code with ours or with quinn, with mutual TLS: aioquic in both roles, and
//! libcurl with ngtcp2 and nghttp3 as a client. They run in a Python environment (`environment`).

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::LazyLock;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use tokio::io::{AsyncBufReadExt, BufReader};
use weft_h3::{Protocol, RecvStream, SendStream, UdpAnswer, UdpTarget, UdpTemplate};

use crate::common::*;
use crate::{connect_udp, environment};

const REQUIREMENTS: &str = include_str!("../interop/requirements.txt");

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// The environment's Python; `None` when it cannot be made, and this is not CI.
fn python() -> Option<&'static Path> {
    static PYTHON: LazyLock<Result<PathBuf, String>> = LazyLock::new(|| {
        environment::made_once("venv", REQUIREMENTS, "bin/python", |place| {
            let list = scripts().join("requirements.txt");
            environment::pip_install(place, &["-r", &list.display().to_string()])?;
            Ok(place.to_owned())
        })
    });
    environment::or_skip(&PYTHON, "environment for other stacks")
}

/// Both sides' keys and certificates, as files for the other stack.
struct Files {
    dir: PathBuf,
    ours: Identity,
    theirs: Identity,
}

impl Files {
    fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&dir).unwrap();
        let (ours, theirs) = (Identity::new(), Identity::new());
        std::fs::write(dir.join("ca.pem"), ours.cert.pem()).unwrap();
        std::fs::write(dir.join("cert.pem"), theirs.cert.pem()).unwrap();
        std::fs::write(dir.join("key.pem"), theirs.key.serialize_pem()).unwrap();
        Self { dir, ours, theirs }
    }

    /// A script of theirs, with their key and our certificate.
    fn script(&self, python: &Path, name: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(python);
        // `-B`: nothing compiled is left among the sources.
        command.arg("-B").arg(scripts().join(name));
        command.kill_on_drop(true);
        for (flag, file) in [
            ("--ca", "ca.pem"),
            ("--cert", "cert.pem"),
            ("--key", "key.pem"),
        ] {
            command.arg(flag).arg(self.dir.join(file));
        }
        command
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Knows plain CONNECT, WebSocket and CONNECT-UDP, and echoes all else.
async fn handle(request: Request<()>, mut send: SendStream, recv: RecvStream) {
    match request.extensions().get::<Protocol>() {
        Some(protocol) if *protocol != Protocol::WEBSOCKET => {
            connect_udp::proxy(request, send, recv).await;
        }
        _ if request.uri().path() == "/early-hints" => {
            let mut hints = Response::new(());
            *hints.status_mut() = StatusCode::EARLY_HINTS;
            let link = "</style.css>".parse().unwrap();
            hints.headers_mut().insert("link", link);
            send.send_interim(&hints).await.unwrap();
            echo(request, send, recv).await;
        }
        _ => echo(request, send, recv).await,
    }
}

/// Our server, which asks for their certificate.
fn our_server(files: &Files) -> quinn::Endpoint {
    let config = server_config(&files.ours, Some(&files.theirs));
    let endpoint = quinn::Endpoint::server(config, any()).unwrap();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            tokio::spawn(async move {
                // A client without a certificate is refused here.
                if let Ok(conn) = incoming.await {
                    serve(conn, all_on(), handle);
                }
            });
        }
    });
    endpoint
}

async fn succeeds(mut command: tokio::process::Command) {
    let output = within(command.stdin(Stdio::null()).output()).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success() && text(&output.stdout).contains("all checks passed"),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aioquics_client_and_our_server() {
    let Some(python) = python() else { return };
    let files = Files::new("aioquic-client");
    let server = our_server(&files);
    let udp = connect_udp::udp_echo().await;
    let mut client = files.script(python, "aioquic_client.py");
    let port = server.local_addr().unwrap().port();
    client.arg("--port").arg(port.to_string());
    client.arg("--udp").arg(udp.port().to_string());
    succeeds(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn curl_with_ngtcp2_and_our_server() {
    let Some(python) = python() else { return };
    let files = Files::new("curl-client");
    let server = our_server(&files);
    let mut client = files.script(python, "curl_client.py");
    let port = server.local_addr().unwrap().port();
    client.arg("--port").arg(port.to_string());
    succeeds(client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_client_and_aioquics_server() {
    let Some(python) = python() else { return };
    let files = Files::new("aioquic-server");
    let mut server = files
        .script(python, "aioquic_server.py")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
    let port = within(lines.next_line()).await.unwrap().unwrap();
    let addr = ([127, 0, 0, 1], port.parse().unwrap()).into();

    let endpoint = quinn::Endpoint::client(any()).unwrap();
    let config = client_config(Some(&files.ours), &files.theirs);
    let connecting = endpoint.connect_with(config, addr, "localhost").unwrap();
    let requests = requests_with(within(connecting).await.unwrap(), all_on());
    get_ok(&requests, "/get").await;
    posts_with_trailers(&requests).await;
    tunnels(&requests, connect()).await;
    let mut websocket = request(Method::CONNECT, "/socket");
    websocket.extensions_mut().insert(Protocol::WEBSOCKET);
    tunnels(&requests, websocket).await;
    unknown_protocol(&requests).await;
    packets(&requests).await;
    many(&requests).await;
}

async fn posts_with_trailers(requests: &weft_h3::Requests) {
    let sent = bytes(300_000);
    let post = request(Method::POST, "/post");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-checksum", "cafe".parse().unwrap());
    let (mut send, mut recv) = within(requests.send(&post, false)).await.unwrap();
    let sending = async {
        send.send_data(sent.clone()).await.unwrap();
        send.send_trailers(&trailers).await.unwrap();
        send.finish().await.unwrap();
    };
    let receiving = async {
        let response = recv.response().await.unwrap();
        let body = read_all(&mut recv).await.unwrap();
        (response, body, recv.trailers().await.unwrap())
    };
    let ((), (response, body, end)) = within(async { tokio::join!(sending, receiving) }).await;
    assert_eq!(response.headers()["x-method"], "POST");
    let cookies = response.headers().get_all("set-cookie");
    assert_eq!(cookies.iter().count(), 2);
    assert_eq!(body, sent);
    assert_eq!(end, Some(trailers));
}

/// The script checks which pseudo-headers a CONNECT carries.
async fn tunnels(requests: &weft_h3::Requests, connect: Request<()>) {
    let (mut send, mut recv) = within(requests.send(&connect, false)).await.unwrap();
    let response = within(recv.response()).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK, "{connect:?}");
    for word in [&b"ping"[..], b"pong"] {
        within(send.send_data(Bytes::from_static(word)))
            .await
            .unwrap();
        let back = within(recv.data()).await.unwrap();
        assert_eq!(back.as_deref(), Some(word));
    }
    within(send.finish()).await.unwrap();
    assert_eq!(within(recv.data()).await.unwrap(), None);
}

async fn unknown_protocol(requests: &weft_h3::Requests) {
    let mut unknown = request(Method::CONNECT, "/");
    let protocol = Protocol::new("x-unheard-of").unwrap();
    unknown.extensions_mut().insert(protocol);
    let (_send, mut recv) = within(requests.send(&unknown, false)).await.unwrap();
    let response = within(recv.response()).await.unwrap();
    assert_eq!(response.status(), StatusCode::NOT_IMPLEMENTED);
}

async fn packets(requests: &weft_h3::Requests) {
    let template = UdpTemplate::well_known("proxy.default:443".parse().unwrap());
    let target = UdpTarget::new("192.0.2.6", 443).unwrap();
    let answer = within(requests.connect_udp(&template, &target))
        .await
        .unwrap();
    let UdpAnswer::Open(mut send, mut recv) = answer else {
        panic!("refused: {answer:?}");
    };
    for payload in [&b"ping"[..], b"", &[9; 1000]] {
        within(send.send(payload)).await.unwrap();
        assert_eq!(within(recv.recv()).await.unwrap().as_deref(), Some(payload));
    }
    within(send.finish()).await.unwrap();
    assert_eq!(within(recv.recv()).await.unwrap(), None);
}

async fn many(requests: &weft_h3::Requests) {
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let requests = requests.clone();
            tokio::spawn(async move { get_ok(&requests, &format!("/{n}")).await })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}
