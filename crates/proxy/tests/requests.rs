//! HTTP requests through real sidecars that run from a saved snapshot.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

mod support;

use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{Method, Request};
use http_body_util::Full;
use support::access;
use support::apps::{CUT_AT_ONCE, HttpApp, RawApp};
use support::client::{assert_cut, get, send};
use support::offline::{Offline, pair};
use support::{ORDERS_MAY, PATIENCE, eventually, http, timeout_route};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn a_request_passes_with_proof_of_who_called_and_one_id_on_both_sides() {
    let app = HttpApp::start("a").await;
    let (orders, invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;

    let request = Request::get("http://invoices/echo?x=%61")
        .header("x-request-id", "id-1")
        .header("connection", "x-drop, authorization")
        .header("x-drop", "1")
        .header("authorization", "secret")
        .header(
            "x-forwarded-client-cert",
            "URI=spiffe://weft.local/ns/default/sa/admin",
        )
        .body(Full::default())
        .unwrap();
    let reply = send(orders.ready.outbound, request).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let echo = reply.json();
    let headers = &echo["headers"];
    assert_eq!(echo["target"], "/echo?x=%61", "path and query as they came");
    assert_eq!(headers["x-request-id"], "id-1");
    assert_eq!(headers["host"], "invoices.default");
    assert_eq!(
        headers["authorization"], "secret",
        "Connection cannot strip it"
    );
    assert!(headers.get("x-drop").is_none(), "Connection named it");
    assert_eq!(headers["via"], "1.1 orders.default, 3 invoices.default");
    let xfcc = headers["x-forwarded-client-cert"].as_str().unwrap();
    assert!(
        xfcc.starts_with("By=spiffe://weft.local/ns/default/sa/invoices;Hash="),
        "{xfcc}"
    );
    assert!(
        xfcc.ends_with(";URI=spiffe://weft.local/ns/default/sa/orders"),
        "{xfcc}"
    );
    assert!(
        !xfcc.contains("admin"),
        "what the caller claimed is dropped"
    );
    drop((invoices, orders));
}

#[tokio::test]
async fn who_is_not_allowed_gets_403_that_names_rule_and_both_sides() {
    let app = HttpApp::start("a").await;
    let mesh = Offline::new().instance("invoices", &[http(app.addr)]);
    let sidecars = mesh.instance("stranger", &[]).start(ORDERS_MAY).await;
    let stranger = &sidecars[1];

    let reply = get(stranger.ready.outbound, "invoices", "/echo").await;
    assert_eq!(reply.status, 403);
    let said = reply.all("proxy-status");
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said[0].starts_with("invoices.default/inbound; error=http_request_denied"),
        "{said:?}"
    );
    assert!(said[0].contains("rule=\"default-deny\""), "{said:?}");
    assert!(
        said[1].starts_with("stranger.default/outbound; received-status=403"),
        "{said:?}"
    );
    let id = |text: &str| text.rsplit_once("request-id=").unwrap().1.to_owned();
    assert_eq!(id(said[0]), id(said[1]), "both sides name the same request");
    assert!(reply.text().contains("may not call"), "{}", reply.text());
    assert_eq!(
        app.hits.load(Ordering::SeqCst),
        0,
        "the application never saw it"
    );
}

#[tokio::test]
async fn what_is_no_service_of_the_mesh_is_refused_with_the_reason() {
    let app = HttpApp::start("a").await;
    let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    for (host, path, status, part) in [
        ("nobody", "/", 404, "no service 'nobody.default'"),
        ("example.com.au.x", "/", 404, "does not name a service"),
        ("127.0.0.1", "/", 404, "does not name a service"),
        ("invoices:81", "/", 404, "no port 81"),
        ("invoices", "/a%2Fb", 400, "encoded slash"),
    ] {
        let reply = get(orders.ready.outbound, host, path).await;
        assert_eq!(reply.status, status, "{host} {path}");
        assert!(reply.text().contains(part), "{host}: {}", reply.text());
        assert!(reply.all("proxy-status")[0].starts_with("orders.default/outbound; error="));
    }
}

#[tokio::test]
async fn a_path_is_decided_on_and_forwarded_in_its_normal_form() {
    let app = HttpApp::start("a").await;
    let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    let reply = get(orders.ready.outbound, "invoices", "/x/../%65cho?q=a%2Fb").await;
    assert_eq!(reply.json()["target"], "/echo?q=a%2Fb");
}

#[tokio::test]
async fn a_timeout_covers_the_whole_transaction_and_cancels_it() {
    let app = HttpApp::start("a").await;
    let (orders, _invoices) = pair(
        &[&[http(app.addr)]],
        &format!("{ORDERS_MAY}---\n{}", timeout_route("300ms")),
    )
    .await;

    let began = tokio::time::Instant::now();
    let reply = get(orders.ready.outbound, "invoices", "/hang").await;
    let took = began.elapsed().as_millis();
    assert_eq!(reply.status, 504);
    assert!((290..600).contains(&took), "{took} ms");
    let said = reply.all("proxy-status")[0];
    assert!(said.contains("error=http_response_timeout"), "{said}");
    assert!(
        said.contains("rule=\"HTTPRoute/default/invoices#0\""),
        "{said}"
    );
    eventually("the application's request is cancelled", || async {
        (app.hanging.load(Ordering::SeqCst) == 0).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_caller_that_leaves_cancels_the_request_at_the_application() {
    let app = HttpApp::start("a").await;
    let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    let outbound = orders.ready.outbound;
    let caller = tokio::spawn(async move { get(outbound, "invoices", "/hang").await });
    let hanging = async |n| {
        eventually("requests under way", || async {
            (app.hanging.load(Ordering::SeqCst) == n).then_some(())
        })
        .await;
    };
    hanging(1).await;
    caller.abort();
    hanging(0).await;
}

#[tokio::test]
async fn a_response_that_is_cut_short_never_looks_whole() {
    let app = HttpApp::start("a").await;
    let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    for path in ["/cut", "/cut-chunked"] {
        let reply = get(orders.ready.outbound, "invoices", path).await;
        assert_eq!(reply.status, 200, "{path}: {reply:?}");
        assert!(reply.body.is_err(), "{path}: {:?}", reply.body);
    }
    let reply = get(orders.ready.outbound, "invoices", "/echo").await;
    assert_eq!(reply.status, 200, "neighbours are not disturbed");
}

/// A reset of a QUIC stream discards what the peer has not read: it must not overtake the head.
#[tokio::test]
async fn the_head_of_a_response_that_breaks_off_at_once_arrives_and_both_sides_say_why() {
    access::keep();
    for (n, answer) in CUT_AT_ONCE.into_iter().enumerate() {
        let app = RawApp::start(answer).await;
        let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
        for round in 0..20 {
            let id = format!("cut-{n}-{round}");
            assert_cut(&orders, &id).await;
            let (outer, inner) = (
                access::entry(&id, "outbound").await,
                access::entry(&id, "inbound").await,
            );
            assert_eq!((&outer["code"], &inner["code"]), (&200.into(), &200.into()));
            let said = |entry: &serde_json::Value| entry["reason"].as_str().unwrap().to_owned();
            assert!(
                said(&inner).contains("the application broke off"),
                "{inner}"
            );
            assert!(
                said(&outer).contains("invoices.default/inbound; error=http_response_incomplete")
                    && said(&outer).contains("the application broke off"),
                "the same reason on both sides: {outer}"
            );
        }
    }
}

#[tokio::test]
async fn a_request_that_got_no_answer_is_logged_with_what_carried_it() {
    access::keep();
    let app = HttpApp::start("a").await;
    let route = timeout_route("300ms");
    let (orders, _invoices) =
        pair(&[&[http(app.addr)]], &format!("{ORDERS_MAY}---\n{route}")).await;
    let request = Request::get("http://invoices/hang").header("x-request-id", "carried-1");
    let reply = send(
        orders.ready.outbound,
        request.body(Full::default()).unwrap(),
    )
    .await;
    assert_eq!(reply.status, 504);
    let entry = access::entry("carried-1", "outbound").await;
    assert_ne!(entry["key_exchange"], "", "{entry}");
    assert_eq!(entry["transport"], "quic", "{entry}");
}

#[tokio::test]
async fn bodies_and_trailers_pass_unchanged() {
    let app = HttpApp::start("a").await;
    let (orders, _invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    for size in [0usize, 1, 1000, 64 * 1024, 64 * 1024 + 1, 3 << 20] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let expected: u64 = body.iter().map(|b| u64::from(*b)).sum::<u64>() + size as u64;
        let request = Request::post("http://invoices/upload")
            .body(Full::new(Bytes::from(body)))
            .unwrap();
        let reply = send(orders.ready.outbound, request).await;
        assert_eq!(reply.text(), expected.to_string(), "{size} bytes");
    }
    let request = Request::get("http://invoices/trailers")
        .header("te", "trailers")
        .body(Full::default())
        .unwrap();
    let reply = send(orders.ready.outbound, request).await;
    assert_eq!(reply.trailers.expect("trailers")["x-checksum"], "42");
}

/// RFC 9112 §9.6. A client that reads nothing before it has sent everything is the plainest kind there is.
#[tokio::test]
async fn an_answer_that_comes_before_the_end_of_an_upload_is_not_lost() {
    const LENGTH: usize = 32 << 20;
    let app = HttpApp::start("a").await;
    let (orders, invoices) = pair(&[&[http(app.addr)]], ORDERS_MAY).await;
    for (host, path, status) in [
        // Of the application, which reads nothing of it, and of weft itself.
        ("invoices", "/status/413", "413"),
        ("nobody", "/", "404"),
    ] {
        let mut stream = TcpStream::connect(orders.ready.outbound).await.unwrap();
        let head =
            format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..LENGTH >> 20 {
            let sent = stream.write_all(&[b'x'; 1 << 20]).await;
            sent.unwrap_or_else(|error| panic!("{host}: the connection was cut: {error}"));
        }
        let mut answer = String::new();
        let read = timeout(PATIENCE, stream.read_to_string(&mut answer)).await;
        read.expect("the answer ends")
            .unwrap_or_else(|error| panic!("{host}: the answer was lost: {error}"));
        let head = answer.to_ascii_lowercase();
        assert!(
            head.starts_with(&format!("http/1.1 {status} ")),
            "{host}: {answer}"
        );
        if status == "404" {
            // Where weft knows that this was the connection's last request, it says so.
            assert!(head.contains("\r\nconnection: close\r\n"), "{answer}");
        }
    }
    drop((invoices, orders));
}

#[tokio::test]
async fn an_instance_whose_application_is_down_is_passed_over_whatever_the_method() {
    let app = HttpApp::start("up").await;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (orders, _invoices) = pair(&[&[http(app.addr)], &[http(nowhere)]], ORDERS_MAY).await;
    for n in 0..20 {
        let request = Request::builder()
            .method(if n % 2 == 0 {
                Method::GET
            } else {
                Method::POST
            })
            .uri("http://invoices/echo")
            .body(Full::new(Bytes::from_static(b"x")))
            .unwrap();
        let reply = send(orders.ready.outbound, request).await;
        assert_eq!(
            reply.status,
            200,
            "request {n}: {:?}",
            reply.all("proxy-status")
        );
    }
}

#[tokio::test]
async fn the_only_instance_with_its_application_down_is_503_with_both_sides_reasons() {
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let (orders, _invoices) = pair(&[&[http(nowhere)]], ORDERS_MAY).await;
    let reply = get(orders.ready.outbound, "invoices", "/echo").await;
    assert_eq!(reply.status, 503);
    let said = reply.all("proxy-status");
    assert!(
        said[0].starts_with("invoices.default/inbound; error=connection_refused"),
        "{said:?}"
    );
    assert!(
        said[1].starts_with("orders.default/outbound; received-status=503"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_dead_instance_is_passed_over() {
    let (one, two) = (HttpApp::start("one").await, HttpApp::start("two").await);
    let (orders, mut invoices) = pair(&[&[http(one.addr)], &[http(two.addr)]], ORDERS_MAY).await;
    let dying = invoices.pop().expect("there are two");
    eventually("both instances answer", || async {
        get(orders.ready.outbound, "invoices", "/echo").await;
        let hits = |app: &HttpApp| app.hits.load(Ordering::SeqCst);
        (hits(&one) > 0 && hits(&two) > 0).then_some(())
    })
    .await;
    dying.kill().await;
    for n in 0..20 {
        let reply = get(orders.ready.outbound, "invoices", "/echo").await;
        assert_eq!(
            reply.status,
            200,
            "request {n}: {:?}",
            reply.all("proxy-status")
        );
    }
}
