//! What a peer may take, and no more.

use std::time::Duration;

use weft_transport::{DialError, RequestError};

use crate::lab::{Ca, LONG, Node, head};

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_at_once_and_the_others_go_on() {
    let ca = Ca::new();
    let invoices = Node::with(&ca, "invoices", LONG, |config| {
        config.limits.max_connections = 2
    })
    .await;
    let target = invoices.target("invoices");
    let mut callers = Vec::new();
    for _ in 0..3 {
        callers.push(Node::new(&ca, "orders").await);
    }
    for caller in &callers[..2] {
        caller.get(&target, "/").await.unwrap();
    }
    let error = callers[2].get(&target, "/").await.unwrap_err();
    assert!(
        matches!(error, RequestError::Dial(DialError::Busy { .. })),
        "{error}"
    );
    assert!(error.is_unprocessed());
    assert_eq!(invoices.endpoint.refusals()["busy"], 1);
    callers[0].get(&target, "/").await.unwrap();
}

#[tokio::test]
async fn under_pressure_a_client_must_first_prove_its_address() {
    let ca = Ca::new();
    let invoices = Node::with(&ca, "invoices", LONG, |config| {
        config.limits.max_handshakes = 1
    })
    .await;
    // Half of one is none: every client gets a Retry (RFC 9000 §8.1.2), and comes in all the same.
    let orders = Node::new(&ca, "orders").await;
    orders.get(&invoices.target("invoices"), "/").await.unwrap();
    assert!(
        invoices.endpoint.refusals().is_empty(),
        "{:?}",
        invoices.endpoint.refusals()
    );
}

#[tokio::test]
async fn requests_beyond_the_limit_wait_for_a_place() {
    let ca = Ca::new();
    let invoices = Node::with(&ca, "invoices", LONG, |config| {
        config.limits.max_requests = 1
    })
    .await;
    let orders = Node::new(&ca, "orders").await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let first = invoices.hold(&connection).await;
    let second =
        tokio::time::timeout(Duration::from_millis(50), connection.request(&head("/"))).await;
    assert!(second.is_err(), "the only place is taken");
    invoices.service.go.notify_one();
    crate::lab::body(first).await.unwrap();
    orders
        .get(&target, "/")
        .await
        .expect("the place is free again");
}

#[tokio::test]
async fn a_peer_that_needs_thousands_of_places_gets_them() {
    let ca = Ca::new();
    let invoices = Node::new(&ca, "invoices").await;
    let orders = Node::new(&ca, "orders").await;
    let connection = orders.connect(&invoices.target("invoices")).await;
    let mut held = Vec::new();
    for _ in 0..2_000 {
        held.push(invoices.hold(&connection).await);
    }
    invoices.service.go.notify_waiters();
    for request in held {
        crate::lab::body(request).await.unwrap();
    }
}

#[tokio::test]
async fn a_header_that_is_too_large_is_refused_alone() {
    let ca = Ca::new();
    let invoices = Node::with(&ca, "invoices", LONG, |config| {
        config.limits.max_header_bytes = 4_096
    })
    .await;
    let orders = Node::new(&ca, "orders").await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    crate::lab::request_on(&connection, "/").await.unwrap();
    let mut large = head("/");
    large
        .headers_mut()
        .insert("x-large", "x".repeat(8_192).parse().unwrap());
    let error = connection.request(&large).await.unwrap_err();
    assert!(
        error.to_string().contains("4096"),
        "the peer has said what it takes: {error}"
    );
    crate::lab::request_on(&connection, "/")
        .await
        .expect("a neighbour is not disturbed");
}
