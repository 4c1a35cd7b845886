//! TCP through real sidecars: half-closes and resets pass in both directions.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

mod support;

use std::io::ErrorKind;
use std::net::SocketAddr;

use support::apps::{Ending, Manner, TcpApp};
use support::offline::pair;
use support::{ORDERS_MAY, PATIENCE, Sidecar, tcp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// `orders` with a local port that leads to `invoices`, whose application this is.
async fn tunnel(app: SocketAddr) -> (Sidecar, Vec<Sidecar>) {
    pair(&[&[tcp(app)]], ORDERS_MAY).await
}

async fn connect(addr: SocketAddr) -> TcpStream {
    timeout(PATIENCE, TcpStream::connect(addr))
        .await
        .unwrap()
        .unwrap()
}

async fn read_all(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut all))
        .await
        .expect("an end in time")?;
    Ok(all)
}

fn noise(size: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..size).map(|_| next()).collect()
}

#[tokio::test]
async fn a_mebibyte_each_way_half_closed_in_turn_is_unchanged() {
    let mut app = TcpApp::start(Manner::EchoAtEnd).await;
    let (orders, _invoices) = tunnel(app.addr).await;
    let sent = noise(1 << 20);
    let mut stream = connect(orders.ready.tcp[0]).await;
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    assert!(
        read_all(&mut stream).await.unwrap() == sent,
        "what came back is what was sent"
    );
    let (ending, received) = app.ended.recv().await.unwrap();
    assert_eq!(ending, Ending::Clean);
    assert!(received == sent);
}

#[tokio::test]
async fn the_called_may_close_its_side_first() {
    let mut app = TcpApp::start(Manner::SpeakFirst).await;
    let (orders, _invoices) = tunnel(app.addr).await;
    let mut stream = connect(orders.ready.tcp[0]).await;
    assert_eq!(read_all(&mut stream).await.unwrap(), b"hello");
    stream.write_all(b"still here").await.unwrap();
    stream.shutdown().await.unwrap();
    assert_eq!(
        app.ended.recv().await.unwrap(),
        (Ending::Clean, b"still here".to_vec())
    );
}

#[tokio::test]
async fn a_reset_of_the_called_reaches_the_caller_as_a_reset() {
    let app = TcpApp::start(Manner::Reset).await;
    let (orders, _invoices) = tunnel(app.addr).await;
    let mut stream = connect(orders.ready.tcp[0]).await;
    stream.write_all(b"x").await.unwrap();
    let error = read_all(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_reset_of_the_caller_reaches_the_called_as_a_reset() {
    let mut app = TcpApp::start(Manner::Listen).await;
    let (orders, _invoices) = tunnel(app.addr).await;
    let mut stream = connect(orders.ready.tcp[0]).await;
    stream.write_all(b"some").await.unwrap();
    stream.set_zero_linger().unwrap();
    drop(stream);
    let (ending, _) = timeout(PATIENCE, app.ended.recv()).await.unwrap().unwrap();
    assert_eq!(ending, Ending::Reset);
}

#[tokio::test]
async fn a_sidecar_that_dies_resets_both_ends() {
    let mut app = TcpApp::start(Manner::Listen).await;
    let (orders, mut invoices) = tunnel(app.addr).await;
    let invoices = invoices.remove(0);
    let mut stream = connect(orders.ready.tcp[0]).await;
    stream.write_all(b"some").await.unwrap();
    support::eventually("bytes arrived", || async {
        let text = metrics(invoices.ready.metrics).await;
        text.contains("weft_tcp_connections_opened_total")
            .then_some(())
    })
    .await;
    invoices.kill().await;
    let error = read_all(&mut stream).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    let (ending, _) = timeout(PATIENCE, app.ended.recv()).await.unwrap().unwrap();
    assert_eq!(ending, Ending::Reset);
}

async fn metrics(addr: SocketAddr) -> String {
    let reply = support::client::get(addr, "localhost", "/metrics").await;
    reply.text().to_owned()
}

#[tokio::test]
async fn a_connection_that_cannot_be_made_is_refused_and_not_left_hanging() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (orders, _invoices) = tunnel(nowhere).await;
    for addr in &orders.ready.tcp {
        // The reset may be quicker than the task that connects.
        let error = match timeout(PATIENCE, TcpStream::connect(addr)).await.unwrap() {
            Ok(mut stream) => read_all(&mut stream).await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn connect_through_the_http_proxy_carries_bytes_or_says_why_not() {
    let app = TcpApp::start(Manner::EchoAtEnd).await;
    let (orders, _invoices) = tunnel(app.addr).await;
    let mut stream = connect(orders.ready.outbound).await;
    let request = b"CONNECT invoices:5432 HTTP/1.1\r\nhost: invoices:5432\r\n\r\nearly";
    stream.write_all(request).await.unwrap();
    stream.shutdown().await.unwrap();
    let all = String::from_utf8(read_all(&mut stream).await.unwrap()).unwrap();
    assert!(all.starts_with("HTTP/1.1 200"), "{all}");
    assert!(all.ends_with("\r\n\r\nearly"), "{all}");

    for (target, said) in [
        ("nobody:5432", "no service 'nobody.default' is known"),
        ("invoices:443", "service 'invoices.default' has no port 443"),
    ] {
        let mut stream = connect(orders.ready.outbound).await;
        let request =
            format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let all = String::from_utf8(read_all(&mut stream).await.unwrap()).unwrap();
        assert!(all.starts_with("HTTP/1.1 404"), "{all}");
        assert!(
            all.contains("proxy-status: orders.default/outbound; error=destination_not_found"),
            "{all}"
        );
        assert!(all.contains(said), "{all}");
    }
}
