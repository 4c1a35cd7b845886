//! What an application sends that is not HTTP/1.1: each gets an answer that says who refused and why.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

mod support;

use std::net::SocketAddr;

use support::apps::HttpApp;
use support::offline::{Offline, pair};
use support::{ORDERS_MAY, PATIENCE, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Sends bytes and reads to the end of the connection.
async fn say(to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(to).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer))
        .await
        .expect("the connection ends")
        .unwrap();
    answer
}

fn field<'a>(answer: &'a str, name: &str) -> &'a str {
    answer
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("no {name} in {answer}"))
}

#[tokio::test]
async fn what_is_not_http_gets_a_status_a_reason_and_a_request_id() {
    let sidecars = Offline::new().instance("orders", &[]).start("").await;
    let outbound = sidecars[0].ready.outbound;
    let long_target = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(70_000));
    let many_fields = format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(101));
    let huge_field = format!("GET / HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(200_000));
    let client_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0x0d, 0x0a, 0, 0];
    for (sent, status, said) in [
        (
            &b"\x01\x02garbage\r\n\r\n"[..],
            400,
            "not a request of HTTP/1.1",
        ),
        (b"GET / HTTP/3.7\r\n\r\n", 400, "not a request of HTTP/1.1"),
        (
            b"GET /\x7f HTTP/1.1\r\n\r\n",
            400,
            "not a request of HTTP/1.1",
        ),
        (
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            400,
            "not a request of HTTP/1.1",
        ),
        (
            b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: x\r\n\r\n",
            400,
            "not a request of HTTP/1.1",
        ),
        (&client_hello, 400, "began with TLS"),
        (long_target.as_bytes(), 431, "larger than 61440 bytes"),
        (many_fields.as_bytes(), 431, "more than 100 fields"),
        (huge_field.as_bytes(), 431, "larger than 61440 bytes"),
    ] {
        let shown = String::from_utf8_lossy(&sent[..sent.len().min(40)]).into_owned();
        let answer = String::from_utf8(say(outbound, sent).await).unwrap();
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{shown}: {answer}"
        );
        let proxy_status = field(&answer, "proxy-status");
        assert!(
            proxy_status.starts_with("orders.default/outbound; error=http_request_error; details=")
                && proxy_status.contains("; side=outbound; revision="),
            "{shown}: {proxy_status}"
        );
        assert_eq!(field(&answer, "connection"), "close");
        let id = field(&answer, "x-request-id");
        assert!(id.len() == 32 && proxy_status.contains(id), "{answer}");
        let (_, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(text.contains(said), "{shown}: {text}");
        assert_eq!(field(&answer, "content-length"), text.len().to_string());
    }
}

#[tokio::test]
async fn garbage_after_a_request_is_answered_after_its_response() {
    let app = HttpApp::start("a").await;
    let (orders, invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    let sent = b"GET /echo HTTP/1.1\r\nhost: invoices\r\n\r\n\x00\x01\r\n\r\n";
    let answer = String::from_utf8(say(orders.ready.outbound, sent).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (_, second) = answer.split_once("HTTP/1.1 400 ").expect(&answer);
    assert!(second.contains("error=http_request_error"), "{second}");
    drop((invoices, orders));
}

#[tokio::test]
async fn a_client_of_http2_is_told_to_use_http11() {
    let sidecars = Offline::new().instance("orders", &[]).start("").await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let answer = say(sidecars[0].ready.outbound, preface).await;
    // SETTINGS of length 0, then GOAWAY on stream 0 with last stream 0 and HTTP_1_1_REQUIRED.
    let (settings, goaway) = answer.split_at(9);
    assert_eq!(settings, [0, 0, 0, 4, 0, 0, 0, 0, 0]);
    assert_eq!(goaway[3..17], [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xd]);
    let length = usize::from(goaway[2]);
    assert_eq!(goaway.len(), 9 + length, "one frame and no more");
    let text = String::from_utf8_lossy(&goaway[17..]);
    assert!(text.contains("takes HTTP/1.1"), "{text}");
}
