//! What travels on a connection, and what becomes of it when things go wrong.

use std::time::Duration;

use tokio::time::timeout;
use weft_transport::RequestError;

use crate::lab::{Ca, PROMPT, body, head, id, pair, request_on};

#[tokio::test]
async fn both_ends_know_who_the_other_is() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let caller = orders.get(&target, "/").await.unwrap();
    assert_eq!(
        caller,
        id("orders").to_string(),
        "the called knows the caller"
    );
    let connection = orders.connect(&target).await;
    let peer = connection.peer().expect("a peer");
    assert_eq!(peer.id, id("invoices"), "the caller knows the called");
    let stats = connection.stats();
    assert_eq!((stats.requests_carried, stats.addr), (1, invoices.addr()));
    assert!(stats.rtt > Duration::ZERO && stats.mtu >= 1_200);
}

#[tokio::test]
async fn a_handler_that_panics_takes_nothing_from_its_neighbours() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let neighbour = invoices.hold(&connection).await;
    let error = request_on(&connection, "/panic").await.unwrap_err();
    assert!(!error.is_unprocessed(), "it was begun: {error}");
    invoices.service.go.notify_one();
    assert_eq!(body(neighbour).await.unwrap(), id("orders").to_string());
    assert_eq!(
        invoices.endpoint.connections().len(),
        1,
        "one connection, still"
    );
}

#[tokio::test]
async fn a_drain_lets_what_is_under_way_end_and_sends_the_rest_elsewhere() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let slow = invoices.hold(&connection).await;

    let endpoint = invoices.endpoint.clone();
    let drain = tokio::spawn(async move { endpoint.drain(PROMPT).await });
    timeout(PROMPT, connection.retired())
        .await
        .expect("told to go elsewhere");
    let refused = connection.request(&head("/")).await.unwrap_err();
    assert!(matches!(refused, RequestError::Retired), "{refused}");
    assert!(refused.is_unprocessed());
    assert!(!drain.is_finished(), "a request is under way");
    invoices.service.go.notify_one();
    assert_eq!(body(slow).await.unwrap(), id("orders").to_string());
    timeout(PROMPT, drain)
        .await
        .expect("the drain ends with the last request")
        .unwrap();

    let busy = orders
        .endpoint
        .pool()
        .connection(&target)
        .await
        .unwrap_err();
    assert!(
        ["busy", "timeout", "other"].contains(&busy.reason()),
        "{busy}"
    );
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_whatever_is_under_way() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let hanging = invoices.hold(&connection).await;
    let drained = timeout(PROMPT, invoices.endpoint.drain(Duration::from_millis(100))).await;
    drained.expect("the deadline ends it");
    let error = body(hanging).await.unwrap_err();
    assert!(error.is_connection() && !error.is_unprocessed(), "{error}");
}
