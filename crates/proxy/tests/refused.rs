//! What weft answers where a request cannot be passed on, or not to its end, whatever its content does.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

mod support;

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::Request;
use http_body_util::Full;
use support::apps::{HttpApp, RawApp};
use support::client::{get, send};
use support::offline::{Offline, pair};
use support::{ORDERS_MAY, PATIENCE, Sidecar, eventually, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

async fn ask(to: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Reads until this much has come.
async fn read_until(stream: &mut TcpStream, end: &str) -> String {
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(end.as_bytes()) {
            match stream.read_u8().await {
                Ok(byte) => answer.push(byte),
                Err(_) => return,
            }
        }
    };
    let in_time = timeout(PATIENCE, read).await.is_ok();
    let answer = String::from_utf8(answer).unwrap();
    assert!(in_time, "nothing more came after: {answer:?}");
    answer
}

/// The head of an answer.
async fn head(stream: &mut TcpStream) -> String {
    read_until(stream, "\r\n\r\n").await
}

async fn read_all(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
    read.expect("the connection ends").unwrap();
    answer
}

#[tokio::test]
async fn what_is_under_way_when_a_drain_ends_is_told_so() {
    let app = HttpApp::start("a").await;
    let mesh = Offline::new().with(|config| config.drain_deadline = Duration::from_secs(2));
    let mesh = mesh.instance("invoices", &[http(app.addr)]);
    let mut sidecars = mesh.instance("orders", &[]).start(ORDERS_MAY).await;
    let orders = sidecars.pop().expect("there are two");
    let outbound = orders.ready.outbound;
    let caller = tokio::spawn(async move {
        let request = Request::get("http://invoices/hang").header("x-request-id", "late-1");
        send(outbound, request.body(Full::default()).unwrap()).await
    });
    eventually("the request is under way", || async {
        (app.hanging.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    orders.stop().await;
    let reply = caller.await.expect("an answer before the cut");
    assert_eq!(reply.status, 503, "{reply:?}");
    let said = reply.all("proxy-status");
    assert!(
        said[0].starts_with("orders.default/outbound; error="),
        "{said:?}"
    );
    assert!(said[0].contains("request-id=\"late-1\""), "{said:?}");
    assert!(reply.text().contains("stops"), "{}", reply.text());
}

#[tokio::test]
async fn rfc9112_6_1_a_transfer_coding_that_is_not_understood_is_501() {
    let app = HttpApp::start("a").await;
    let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    for fields in [
        "transfer-encoding: gzip, chunked\r\n",
        "transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n",
        "transfer-encoding: chunked, chunked\r\n",
    ] {
        let text = format!("POST /echo HTTP/1.1\r\nhost: invoices\r\n{fields}\r\n0\r\n\r\n");
        let mut stream = ask(orders.ready.outbound, &text).await;
        let head = head(&mut stream).await.to_ascii_lowercase();
        assert!(head.starts_with("http/1.1 501 "), "{fields}: {head}");
        assert!(
            head.contains("proxy-status: orders.default/outbound; error="),
            "{head}"
        );
    }
    assert_eq!(app.hits.load(Ordering::SeqCst), 0, "it saw none of them");
    let text =
        "POST /echo HTTP/1.1\r\nhost: invoices\r\ntransfer-encoding: Chunked\r\n\r\n0\r\n\r\n";
    let mut stream = ask(orders.ready.outbound, text).await;
    let head = head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
}

#[tokio::test]
async fn rfc9112_6_1_an_answer_with_a_transfer_coding_that_is_not_understood_is_502() {
    for answer in [
        &b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nabc",
    ] {
        let app = RawApp::start(answer).await;
        let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
        let reply = get(orders.ready.outbound, "invoices", "/").await;
        assert_eq!(reply.status, 502, "{reply:?}");
        let said = reply.all("proxy-status");
        assert!(
            said[0].starts_with("invoices.default/inbound; error=http_protocol_error"),
            "{said:?}"
        );
        assert!(said[0].contains("gzip"), "{said:?}");
    }
}

/// Neither a head that stops coming nor an idle connection holds a place for long.
#[tokio::test]
async fn a_head_that_does_not_come_is_408_and_an_idle_connection_is_closed() {
    let app = HttpApp::start("a").await;
    let mesh = Offline::new().with(|config| config.head_timeout = Duration::from_millis(300));
    let mesh = mesh.instance("invoices", &[http(app.addr)]);
    let sidecars = mesh.instance("orders", &[]).start(ORDERS_MAY).await;
    let outbound = sidecars[1].ready.outbound;
    let answer = read_all(ask(outbound, "GET / HTTP/1.1\r\nhost: inv").await).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(
        answer.contains("proxy-status: orders.default/outbound; error="),
        "{answer}"
    );
    assert!(answer.contains("x-request-id: "), "{answer}");
    assert!(answer.contains("not complete after 300ms"), "{answer}");
    let idle = read_all(TcpStream::connect(outbound).await.unwrap()).await;
    assert_eq!(idle, "", "it has asked for nothing");

    // Between two requests the time begins anew, and an answer may take longer.
    let mut stream = ask(outbound, "GET /echo HTTP/1.1\r\nhost: invoices\r\n\r\n").await;
    let first = read_until(&mut stream, "}}").await;
    assert!(first.starts_with("HTTP/1.1 200 "), "{first}");
    let rest = read_all(stream).await;
    assert_eq!(rest, "");
    let mut stream = ask(outbound, "GET /hang HTTP/1.1\r\nhost: invoices\r\n\r\n").await;
    let nothing = timeout(Duration::from_secs(1), stream.read_u8()).await;
    assert!(nothing.is_err(), "an answer is waited for: {nothing:?}");
}

/// `invoices` and a stranger that may not call it.
async fn denied(app: &HttpApp) -> Vec<Sidecar> {
    let mesh = Offline::new().instance("invoices", &[http(app.addr)]);
    let mesh = mesh.instance("orders", &[]).instance("stranger", &[]);
    mesh.start(ORDERS_MAY).await
}

#[tokio::test]
async fn a_denied_request_is_answered_without_its_content() {
    let app = HttpApp::start("a").await;
    let sidecars = denied(&app).await;
    let text = "POST /echo HTTP/1.1\r\nhost: invoices\r\ncontent-length: 5\r\n\r\n";
    let mut stream = ask(sidecars[2].ready.outbound, text).await;
    let head = head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");

    // Who may call waits for nobody either: what is late is passed on when it comes.
    let text = "POST /upload HTTP/1.1\r\nhost: invoices\r\nconnection: close\r\ncontent-length: 5\r\n\r\nab";
    let mut stream = ask(sidecars[1].ready.outbound, text).await;
    eventually("the request is with the application", || async {
        (app.hits.load(Ordering::SeqCst) == 1).then_some(())
    })
    .await;
    stream.write_all(b"cde").await.unwrap();
    let answer = read_all(stream).await;
    let sum: u32 = b"abcde".iter().map(|b| u32::from(*b)).sum::<u32>() + 5;
    assert!(answer.contains(&format!("\r\n{sum}\r\n")), "{answer}");
}

#[tokio::test]
async fn rfc9110_10_1_1_who_expects_100_gets_it_only_if_the_content_is_wanted() {
    let app = HttpApp::start("a").await;
    over_both(&app, |sidecars| async move {
        let text = "POST /upload HTTP/1.1\r\nhost: invoices\r\nexpect: 100-continue\r\nconnection: close\r\ncontent-length: 5\r\n\r\n";
        let mut stream = ask(sidecars[2].ready.outbound, text).await;
        let refused = head(&mut stream).await;
        assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");

        let began = Instant::now();
        let mut stream = ask(sidecars[1].ready.outbound, text).await;
        let wanted = head(&mut stream).await;
        assert_eq!(wanted, "HTTP/1.1 100 Continue\r\n\r\n");
        let took = began.elapsed();
        assert!(took < Duration::from_secs(1), "it was told so, not tired of waiting: {took:?}");
        stream.write_all(b"abcde").await.unwrap();
        let answer = read_all(stream).await;
        let sum: u32 = b"abcde".iter().map(|b| u32::from(*b)).sum::<u32>() + 5;
        assert!(answer.contains(&format!("\r\n{sum}\r\n")), "{answer}");
    })
    .await;
}

/// Runs it over QUIC, and where only TCP passes.
async fn over_both<F: Future<Output = ()>>(app: &HttpApp, run: impl Fn(Vec<Sidecar>) -> F) {
    run(denied(app).await).await;
    let mesh = Offline::new().instance("invoices", &[http(app.addr)]);
    let (mesh, _middlebox) = mesh.behind_a_middlebox().await;
    let mesh = mesh.instance("orders", &[]).instance("stranger", &[]);
    let sidecars = mesh.start(ORDERS_MAY).await;
    // The first request finds out that only TCP passes.
    for sidecar in &sidecars[1..] {
        get(sidecar.ready.outbound, "invoices", "/echo").await;
    }
    run(sidecars).await;
}
