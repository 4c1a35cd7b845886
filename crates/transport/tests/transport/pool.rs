//! One connection for a peer and identity, and what happens when it cannot be had.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use weft_transport::{DialError, Target};

use crate::lab::{Ca, LONG, Node, PROMPT, eventually, id, pair, request_on};

#[tokio::test]
async fn callers_at_the_same_time_share_one_dial_and_one_connection() {
    let ca = Ca::new();
    let orders = Arc::new(Node::new(&ca, "orders").await);
    let invoices = Node::new(&ca, "invoices").await;
    let target = invoices.target("invoices");
    let calls = (0..64).map(|_| {
        let (orders, target) = (orders.clone(), target.clone());
        tokio::spawn(async move { orders.get(&target, "/").await })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    let connections = orders.endpoint.connections();
    assert_eq!(connections.len(), 1);
    assert_eq!(connections[0].requests_carried, 64);
    assert_eq!(invoices.endpoint.connections().len(), 1);
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_end_the_dial_of_the_others() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let pool = orders.endpoint.pool();
    // Polled once, which begins the dial, and dropped.
    tokio::select! {
        biased;
        _ = pool.connection(&target) => panic!("a dial takes longer than nothing"),
        () = std::future::ready(()) => {}
    }
    let connection = pool.connection(&target).await.unwrap();
    assert_eq!(
        connection.peer().map(|peer| peer.id.clone()),
        Some(id("invoices"))
    );
    // A second dial would show at the called by now, or be under way.
    request_on(&connection, "/").await.unwrap();
    assert_eq!(invoices.endpoint.connections().len(), 1, "dialled once");
    assert_eq!(orders.endpoint.connections().len(), 1);
}

#[tokio::test]
async fn another_expected_identity_at_the_same_address_is_another_connection() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    orders.get(&invoices.target("invoices"), "/").await.unwrap();
    let either = [id("invoices"), id("billing")].into_iter().collect();
    let target = Target::new(invoices.addr(), weft_certs::ExpectedPeer::AnyOf(either));
    orders.get(&target, "/").await.unwrap();
    assert_eq!(orders.endpoint.connections().len(), 2);
}

#[tokio::test]
async fn a_dial_that_nobody_answers_fails_in_time_and_is_remembered_for_a_while() {
    let ca = Ca::new();
    let orders = Node::with(&ca, "orders", LONG, |config| {
        config.limits.dial_timeout = Duration::from_millis(300);
        config.limits.dial_backoff = (Duration::from_secs(60), Duration::from_secs(60));
    })
    .await;
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let target = Target::new(nobody.local_addr().unwrap(), id("invoices"));
    let began = Instant::now();
    let error = orders
        .endpoint
        .pool()
        .connection(&target)
        .await
        .unwrap_err();
    assert_eq!(error.reason(), "timeout");
    assert!(began.elapsed() < Duration::from_secs(10));
    let again = orders
        .endpoint
        .pool()
        .connection(&target)
        .await
        .unwrap_err();
    assert!(
        again.is_remembered() && again.reason() == "timeout",
        "{again}"
    );
    assert_eq!(orders.endpoint.refusals()["timeout"], 1, "dialled once");

    // Another identity changes what may be possible: nothing is remembered.
    orders.renew(&ca, "orders");
    let counted = || {
        let again = matches!(orders.endpoint.refusals().get("timeout"), Some(2..));
        again.then_some(())
    };
    let pool = orders.endpoint.pool();
    timeout(PROMPT, async {
        while counted().is_none() {
            assert!(pool.connection(&target).await.is_err());
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("dialled anew");
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_the_next_request_dials() {
    let ca = Ca::new();
    let orders = Node::with(&ca, "orders", LONG, |config| {
        config.limits.pool_idle = Duration::ZERO;
    })
    .await;
    let invoices = Node::new(&ca, "invoices").await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let under_way = invoices.hold(&connection).await;
    assert!(!connection.is_retired(), "a request is under way");
    invoices.service.go.notify_one();
    crate::lab::body(under_way).await.unwrap();
    // Replacing trust makes the warden look now and not in some seconds.
    let same = Ca::bundles(2, &[&ca]);
    orders
        .identity
        .replace_bundles(same, std::time::SystemTime::now())
        .unwrap();
    timeout(PROMPT, connection.retired())
        .await
        .expect("closed when idle");
    eventually("both ends to let go", || {
        let none =
            orders.endpoint.connections().is_empty() && invoices.endpoint.connections().is_empty();
        none.then_some(())
    })
    .await;
    orders.get(&target, "/").await.unwrap();
}

#[tokio::test]
async fn a_peer_that_vanishes_is_noticed_within_three_seconds_and_a_bit() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let hanging = invoices.hold(&connection).await;
    // As a cut cable: nothing is said any more, and nothing heard. The socket stays open and mute.
    let began = Instant::now();
    invoices.tasks.token().cancel();
    let error = crate::lab::body(hanging).await.unwrap_err();
    assert!(error.is_connection(), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(4),
        "{:?}",
        began.elapsed()
    );
    eventually("the connection to be struck off", || {
        orders.endpoint.connections().is_empty().then_some(())
    })
    .await;
}

#[tokio::test]
async fn nobody_is_dialled_where_nobody_is_expected() {
    let ca = Ca::new();
    let orders = Node::new(&ca, "orders").await;
    let nobody = weft_certs::ExpectedPeer::AnyOf(std::collections::BTreeSet::new());
    let target = Target::new("127.0.0.1:9".parse().unwrap(), nobody);
    let error = orders
        .endpoint
        .pool()
        .connection(&target)
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::NobodyExpected { .. }), "{error}");
}
