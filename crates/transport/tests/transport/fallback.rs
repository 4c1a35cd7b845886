//! The way around blocked UDP: what QUIC promises holds over TCP too, and QUIC is come back to.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request};
use tokio::time::{Instant, timeout};
use weft_certs::tls::ClientAuth;
use weft_certs::{ExpectedPeer, SpiffeId};
use weft_transport::{
    Carrier, Connection, DialError, EndReason, JoinConfig, KeyExchange, RequestError, Target,
    join_connection,
};

use crate::lab::{Ca, LONG, Node, PROMPT, body, eventually, head, id, pair, request_on};
use crate::middlebox::Middlebox;

/// `orders`, `invoices`, and a box between them.
async fn apart(ca: &Ca) -> (Node, Node, Middlebox) {
    let (orders, invoices) = pair(ca).await;
    let middlebox = Middlebox::before(invoices.addr()).await;
    (orders, invoices, middlebox)
}

fn target(middlebox: &Middlebox) -> Target {
    Target::new(middlebox.addr(), id("invoices"))
}

async fn connect(node: &Node, target: &Target) -> Connection {
    let connection = node.connect(target).await;
    assert_eq!(connection.carrier(), Carrier::Tcp);
    connection
}

#[tokio::test]
async fn where_no_udp_passes_tcp_wins_after_a_moment_and_is_remembered() {
    let ca = Ca::new();
    let (orders, invoices, middlebox) = apart(&ca).await;
    let (way, began) = (target(&middlebox), Instant::now());
    let caller = orders.get(&way, "/").await.unwrap();
    assert_eq!(caller, id("orders").to_string(), "it knows who calls");
    let took = began.elapsed();
    assert!(
        took >= Duration::from_millis(250) && took < Duration::from_millis(1_500),
        "QUIC had its head start, and no more: {took:?}"
    );
    let connection = connect(&orders, &way).await;
    let peer = connection.peer().map(|peer| peer.id.clone());
    assert_eq!(peer, Some(id("invoices")), "the caller knows the called");
    let stats = connection.stats();
    assert_eq!((stats.alpn.as_str(), stats.requests_carried), ("h2", 1));
    assert!(stats.bytes_sent > 0 && stats.bytes_received > 0);
    let inbound = &invoices.endpoint.connections()[0];
    assert_eq!(
        (inbound.carrier, inbound.alpn.as_str()),
        (Carrier::Tcp, "h2")
    );

    // Another identity that may answer is another connection, over the same path.
    let either = [id("invoices"), id("billing")].into_iter().collect();
    let again = Target::new(middlebox.addr(), ExpectedPeer::AnyOf(either));
    let began = Instant::now();
    connect(&orders, &again).await;
    assert!(began.elapsed() < Duration::from_millis(250), "by memory");
    let stats = orders.endpoint.fallback();
    assert_eq!((stats.blocked, stats.to_tcp, stats.to_quic), (1, 2, 0));
    assert!(orders.endpoint.refusals().is_empty(), "nobody was refused");
}

#[tokio::test]
async fn when_udp_passes_again_new_requests_go_over_quic_and_the_others_end_in_peace() {
    let ca = Ca::new();
    let (orders, invoices, middlebox) = apart(&ca).await;
    let way = target(&middlebox);
    let old = connect(&orders, &way).await;
    let slow = invoices.hold(&old).await;
    middlebox.let_udp_pass(true);
    timeout(PROMPT, old.retired()).await.expect("a way back");
    assert_eq!(old.stats().retired, Some(EndReason::QuicIsBack));
    let new = orders.connect(&way).await;
    assert_eq!(new.carrier(), Carrier::Quic);
    orders.get(&way, "/").await.unwrap();
    assert_eq!(old.stats().requests_active, 1, "it still carries its own");
    invoices.service.go.notify_one();
    assert_eq!(body(slow).await.unwrap(), id("orders").to_string());
    eventually("the old connection to close", || {
        (orders.endpoint.connections().len() == 1).then_some(())
    })
    .await;
    let stats = orders.endpoint.fallback();
    assert_eq!((stats.blocked, stats.to_quic), (0, 1));
}

#[tokio::test]
async fn a_connection_that_falls_silent_over_udp_is_followed_by_one_over_tcp() {
    let ca = Ca::new();
    let (orders, invoices, middlebox) = apart(&ca).await;
    middlebox.let_udp_pass(true);
    let way = target(&middlebox);
    let connection = orders.connect(&way).await;
    assert_eq!(connection.carrier(), Carrier::Quic);
    let hanging = invoices.hold(&connection).await;
    middlebox.let_udp_pass(false);
    let error = body(hanging).await.unwrap_err();
    assert!(error.is_connection() && !error.is_unprocessed(), "{error}");
    let began = Instant::now();
    orders.get(&way, "/").await.unwrap();
    assert!(
        began.elapsed() < Duration::from_millis(250),
        "both ways at once: {:?}",
        began.elapsed()
    );
    connect(&orders, &way).await;
}

#[tokio::test]
async fn without_the_fallback_nothing_listens_and_nothing_is_dialled() {
    let ca = Ca::new();
    let alone = Node::with(&ca, "orders", LONG, |config| {
        config.fallback = false;
        config.limits.dial_timeout = Duration::from_millis(300);
    })
    .await;
    let refused = std::net::TcpStream::connect(alone.addr()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let invoices = Node::new(&ca, "invoices").await;
    let middlebox = Middlebox::before(invoices.addr()).await;
    let error = alone.get(&target(&middlebox), "/").await.unwrap_err();
    let RequestError::Dial(error) = error else {
        panic!("{error}")
    };
    assert!(matches!(error, DialError::Timeout { .. }), "{error}");
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways_and_half_closes() {
    let ca = Ca::new();
    let (orders, _invoices, middlebox) = apart(&ca).await;
    let connection = connect(&orders, &target(&middlebox)).await;
    let mut connect = Request::new(());
    *connect.method_mut() = Method::CONNECT;
    *connect.uri_mut() = "ledger.default:5432".parse().unwrap();
    let mut exchange = connection.request(&connect).await.unwrap();
    exchange.recv.response().await.unwrap();
    let chunk = Bytes::from(vec![7; 100_000]);
    let (send, recv) = (&mut exchange.send, &mut exchange.recv);
    let sending = async {
        // More than all windows together: it comes back while it is being sent.
        for _ in 0..400 {
            send.send_data(chunk.clone()).await.unwrap();
        }
        send.finish().await.unwrap();
    };
    let receiving = async {
        let mut received = 0;
        while let Some(piece) = recv.data().await.unwrap() {
            assert!(piece.iter().all(|byte| *byte == 7));
            received += piece.len();
        }
        received
    };
    let ((), received) = timeout(PROMPT, async { tokio::join!(sending, receiving) })
        .await
        .expect("both directions move");
    assert_eq!(received, 400 * chunk.len());
}

#[tokio::test]
async fn who_is_not_expected_is_refused_over_tcp_with_the_reason_on_both_sides() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (orders, invoices, middlebox) = apart(&ca).await;
    let billing = Target::new(middlebox.addr(), id("billing"));
    let error = orders.get(&billing, "/").await.unwrap_err();
    assert!(error.to_string().contains("wrong_identity"), "{error}");
    assert!(error.to_string().contains("/sa/invoices"), "{error}");
    assert_eq!(invoices.refusal("rejected_by_peer").await, 1);

    // One that trusts us, and whom we do not trust: over TCP it hears of it while it dials.
    let stranger = Node::new(&other, "orders").await;
    let both = Ca::bundles(2, &[&ca, &other]);
    let (identity, now) = (&stranger.identity, SystemTime::now());
    identity.replace_bundles(both, now).unwrap();
    let error = stranger.get(&target(&middlebox), "/").await.unwrap_err();
    let RequestError::Dial(DialError::RejectedByPeer { reason, .. }) = &error else {
        panic!("{error}")
    };
    assert_eq!(*reason, "unknown_authority");
    assert_eq!(invoices.refusal("unknown_authority").await, 1);
    assert!(error.is_unprocessed());
}

#[tokio::test]
async fn a_joiner_comes_in_over_tcp_where_it_may() {
    let ca = Ca::new();
    let sidecar = Node::new(&ca, "invoices").await;
    let control = Node::with(&ca, "control", LONG, |config| {
        config.client_auth = ClientAuth::Optional;
    })
    .await;
    let join = |pin, expected: SpiffeId| JoinConfig {
        pin,
        expected,
        key_exchange: KeyExchange::Preferred,
        fallback: true,
    };
    let (env, tasks) = (&sidecar.env, &sidecar.tasks);
    let middlebox = Middlebox::before(control.addr()).await;
    let known = join(ca.pin(), id("control"));
    let connection = join_connection(env, tasks, middlebox.addr(), &known);
    let connection = connection.await.unwrap();
    assert_eq!(connection.carrier(), Carrier::Tcp);
    assert_eq!(request_on(&connection, "/").await.unwrap(), "nobody");
    drop(connection);
    eventually("the connection to end with its last holder", || {
        control.endpoint.connections().is_empty().then_some(())
    })
    .await;

    let only_quic = JoinConfig {
        fallback: false,
        ..known
    };
    let error = join_connection(env, tasks, middlebox.addr(), &only_quic).await;
    assert!(matches!(error, Err(DialError::Timeout { .. })), "{error:?}");

    let wrong = join(Ca::new().pin(), id("control"));
    let error = join_connection(env, tasks, middlebox.addr(), &wrong).await;
    assert_eq!(error.unwrap_err().reason(), "wrong_pin");

    let middlebox = Middlebox::before(sidecar.addr()).await;
    let known = join(ca.pin(), id("invoices"));
    let error = join_connection(env, tasks, middlebox.addr(), &known).await;
    let error = error.unwrap_err();
    assert!(error.to_string().contains("no certificate"), "{error}");
    assert_eq!(sidecar.refusal("no_certificate").await, 1);
}

#[tokio::test]
async fn a_new_svid_moves_new_requests_and_leaves_those_under_way_alone() {
    let ca = Ca::new();
    let (orders, invoices, middlebox) = apart(&ca).await;
    let way = target(&middlebox);
    for (renewed, service) in [(&orders, "orders"), (&invoices, "invoices")] {
        let old = connect(&orders, &way).await;
        let slow = invoices.hold(&old).await;
        renewed.renew(&ca, service);
        timeout(PROMPT, old.retired()).await.expect("it is retired");
        orders.get(&way, "/").await.expect("new requests go on");
        assert_ne!(connect(&orders, &way).await.stats().id, old.stats().id);
        assert_eq!(old.stats().requests_active, 1);
        invoices.service.go.notify_one();
        assert_eq!(body(slow).await.unwrap(), id("orders").to_string());
        eventually("the old connection to close", || {
            (orders.endpoint.connections().len() == 1).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn trust_that_ends_cuts_connections_and_what_is_on_them_within_two_seconds() {
    let (ca, next) = (Ca::new(), Ca::new());
    let (orders, invoices, middlebox) = apart(&ca).await;
    let way = target(&middlebox);
    let connection = connect(&orders, &way).await;
    let slow = invoices.hold(&connection).await;
    let (svid, began) = (next.svid("invoices", LONG), Instant::now());
    let bundles = Ca::bundles(2, &[&next]);
    let replaced = invoices.identity.replace(svid, bundles, SystemTime::now());
    replaced.unwrap();
    let error = body(slow).await.unwrap_err();
    assert!(!error.is_unprocessed(), "{error}");
    assert!(began.elapsed() < Duration::from_secs(2));
    eventually("both ends to let go", || {
        let ends = [&orders.endpoint, &invoices.endpoint];
        ends.iter()
            .all(|end| end.connections().is_empty())
            .then_some(())
    })
    .await;
    assert_eq!(invoices.endpoint.enforced().borrow().cut, 1);
}

#[tokio::test]
async fn a_connection_ends_with_the_peers_certificate() {
    let ca = Ca::new();
    let orders = Node::new(&ca, "orders").await;
    let life = Duration::from_secs(4);
    let invoices = Node::with(&ca, "invoices", life, |_| {}).await;
    let middlebox = Middlebox::before(invoices.addr()).await;
    let (way, began) = (target(&middlebox), Instant::now());
    let connection = connect(&orders, &way).await;
    let slow = invoices.hold(&connection).await;
    timeout(PROMPT, connection.retired())
        .await
        .expect("retired");
    assert!(began.elapsed() < life, "{:?}", began.elapsed());
    body(slow).await.unwrap_err();
    assert!(began.elapsed() < life + Duration::from_secs(1));
}

#[tokio::test]
async fn a_drain_lets_what_is_under_way_end_and_sends_the_rest_elsewhere() {
    let ca = Ca::new();
    let (orders, invoices, middlebox) = apart(&ca).await;
    let connection = connect(&orders, &target(&middlebox)).await;
    let slow = invoices.hold(&connection).await;
    let endpoint = invoices.endpoint.clone();
    let drain = tokio::spawn(async move { endpoint.drain(PROMPT).await });
    let told = timeout(PROMPT, connection.retired()).await;
    told.expect("told to go elsewhere");
    let refused = connection.request(&head("/")).await.unwrap_err();
    assert!(refused.is_unprocessed(), "{refused}");
    invoices.service.go.notify_one();
    assert_eq!(body(slow).await.unwrap(), id("orders").to_string());
    let drained = timeout(PROMPT, drain).await;
    drained.expect("it ends with the last request").unwrap();
}

#[tokio::test]
async fn a_peer_behind_a_dead_path_is_noticed_within_three_seconds_and_a_bit() {
    let ca = Ca::new();
    let (orders, invoices, middlebox) = apart(&ca).await;
    let connection = connect(&orders, &target(&middlebox)).await;
    let hanging = invoices.hold(&connection).await;
    let began = Instant::now();
    middlebox.swallow_tcp();
    let error = body(hanging).await.unwrap_err();
    assert!(error.is_connection(), "{error}");
    assert!(error.to_string().contains("nothing arrived"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(4));
    eventually("both ends to let go", || {
        let ends = [&orders.endpoint, &invoices.endpoint];
        ends.iter()
            .all(|end| end.connections().is_empty())
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_goes_wrong_with_one_request_stays_with_it() {
    let ca = Ca::new();
    let (orders, invoices, middlebox) = apart(&ca).await;
    let connection = connect(&orders, &target(&middlebox)).await;
    let neighbour = invoices.hold(&connection).await;
    let error = request_on(&connection, "/panic").await.unwrap_err();
    assert!(!error.is_unprocessed(), "it was begun: {error}");
    let mut large = head("/");
    let value = "x".repeat(100_000).parse().unwrap();
    large.headers_mut().insert("x-large", value);
    let mut exchange = connection
        .request_with(&large, Bytes::new(), true)
        .await
        .unwrap();
    let status = exchange.recv.response().await.unwrap().status();
    assert_eq!(status.as_u16(), 431);
    invoices.service.go.notify_one();
    assert_eq!(body(neighbour).await.unwrap(), id("orders").to_string());
    assert_eq!(invoices.endpoint.connections().len(), 1);
}
