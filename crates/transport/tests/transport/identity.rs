//! Who is let in, for how long, and what a change of identity or trust does to connections.

use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};
use weft_certs::RevocationList;
use weft_certs::tls::ClientAuth;
use weft_transport::{
    DialError, EndReason, JoinConfig, KeyExchange, RequestError, join_connection,
};

use crate::lab::{Ca, LONG, Node, PROMPT, body, eventually, id, pair, request_on};

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused_and_counted() {
    let ca = Ca::new();
    let (orders, intruder) = (
        Node::new(&ca, "orders").await,
        Node::new(&ca, "intruder").await,
    );
    let error = orders
        .get(&intruder.target("invoices"), "/")
        .await
        .unwrap_err();
    let RequestError::Dial(error) = error else {
        panic!("expected a failed dial: {error}")
    };
    assert_eq!(error.reason(), "wrong_identity");
    assert!(
        error.to_string().contains("/sa/intruder"),
        "it names who answered: {error}"
    );
    assert_eq!(orders.endpoint.refusals()["wrong_identity"], 1);
}

#[tokio::test]
async fn strangers_are_refused_on_both_sides_with_their_reason() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (orders, invoices) = pair(&ca).await;
    let stranger = Node::with(&other, "orders", LONG, |config| {
        config.limits.dial_backoff = (PROMPT, PROMPT);
    })
    .await;
    let error = orders
        .get(&stranger.target("orders"), "/")
        .await
        .unwrap_err();
    assert!(error.to_string().contains("unknown_authority"), "{error}");

    // One that trusts us, and whom we do not trust: it hears of it only after its handshake is done.
    let both = Ca::bundles(2, &[&ca, &other]);
    stranger
        .identity
        .replace_bundles(both, SystemTime::now())
        .unwrap();
    let error = stranger
        .get(&invoices.target("invoices"), "/")
        .await
        .unwrap_err();
    assert!(
        error.is_unprocessed() || matches!(error, RequestError::Stream(_)),
        "{error}"
    );
    assert_eq!(invoices.refusal("unknown_authority").await, 1);
    // The first was that of orders, which did not take the stranger for a server.
    eventually("the second rejection", || {
        (stranger.endpoint.refusals()["rejected_by_peer"] == 2).then_some(())
    })
    .await;
    // From now on it knows, and says so at once.
    let again = stranger
        .endpoint
        .pool()
        .connection(&invoices.target("invoices"))
        .await;
    let Err(again) = again else {
        panic!("the rejection is remembered")
    };
    assert_eq!(again.reason(), "rejected_by_peer", "{again}");
}

#[tokio::test]
async fn who_has_no_certificate_is_let_in_only_to_join() {
    let ca = Ca::new();
    let sidecar = Node::new(&ca, "invoices").await;
    let control = Node::with(&ca, "control", LONG, |config| {
        config.client_auth = ClientAuth::Optional;
    })
    .await;
    let join = |pin, service| JoinConfig {
        pin,
        expected: id(service),
        key_exchange: KeyExchange::Preferred,
        fallback: true,
    };
    let (env, tasks) = (&sidecar.env, &sidecar.tasks);

    let known = join(ca.pin(), "control");
    let connection = join_connection(env, tasks, control.addr(), &known)
        .await
        .unwrap();
    assert_eq!(request_on(&connection, "/").await.unwrap(), "nobody");
    drop(connection);
    eventually("the connection to end with its last holder", || {
        control.endpoint.connections().is_empty().then_some(())
    })
    .await;

    let wrong = Ca::new().pin();
    let error = join_connection(env, tasks, control.addr(), &join(wrong, "control"))
        .await
        .unwrap_err();
    assert!(matches!(error, DialError::Unverified { .. }), "{error}");
    assert_eq!(error.reason(), "wrong_pin");

    // A sidecar refuses: the joiner hears of it with its first request.
    let known = join(ca.pin(), "invoices");
    if let Ok(connection) = join_connection(env, tasks, sidecar.addr(), &known).await {
        request_on(&connection, "/").await.unwrap_err();
    }
    assert_eq!(sidecar.refusal("no_certificate").await, 1);
}

#[tokio::test]
async fn a_new_svid_moves_new_requests_and_leaves_those_under_way_alone() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    for renewed in [&orders, &invoices] {
        let old = orders.connect(&target).await;
        let slow = invoices.hold(&old).await;
        let service = if std::ptr::eq(renewed, &orders) {
            "orders"
        } else {
            "invoices"
        };
        renewed.renew(&ca, service);
        timeout(PROMPT, old.retired())
            .await
            .expect("the old connection is retired");
        orders.get(&target, "/").await.expect("new requests go on");
        let new = orders.connect(&target).await;
        assert_ne!(new.stats().id, old.stats().id);
        assert!(
            old.stats().requests_active == 1,
            "the old one still carries its request"
        );
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
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let slow = invoices.hold(&connection).await;
    // invoices moves to another root, and drops the one that vouches for orders.
    let svid = next.svid("invoices", LONG);
    let began = Instant::now();
    invoices
        .identity
        .replace(svid, Ca::bundles(2, &[&next]), SystemTime::now())
        .unwrap();
    let error = body(slow).await.unwrap_err();
    assert!(error.is_connection(), "{error}");
    assert!(
        began.elapsed() < Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    let error = orders.get(&target, "/").await.unwrap_err();
    assert!(error.to_string().contains("unknown_authority"), "{error}");
}

#[tokio::test]
async fn a_connection_is_replaced_before_a_certificate_ends_and_cut_when_it_does() {
    let ca = Ca::new();
    let orders = Node::new(&ca, "orders").await;
    let life = Duration::from_secs(5);
    let invoices = Node::with(&ca, "invoices", life, |_| {}).await;
    let (target, began) = (invoices.target("invoices"), Instant::now());
    let connection = orders.connect(&target).await;
    let slow = invoices.hold(&connection).await;
    timeout(PROMPT, connection.retired())
        .await
        .expect("retired before the end");
    assert!(began.elapsed() < life, "{:?}", began.elapsed());
    let error = body(slow).await.unwrap_err();
    assert!(error.is_connection(), "{error}");
    // The end is a whole second (RFC 5280 §4.1.2.5.1), which may begin up to one before.
    assert!(
        began.elapsed() > life - Duration::from_millis(1_500),
        "{:?}",
        began.elapsed()
    );
    assert!(
        began.elapsed() < life + Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let ended = [
        EndReason::PeerCertificateEnds.label(),
        EndReason::PeerGoingAway.label(),
    ];
    let reason = connection.stats().retired.map(EndReason::label);
    assert!(
        reason.is_some_and(|reason| ended.contains(&reason)),
        "{reason:?}"
    );
}

/// The serial of the peer's certificate on the one connection that carries something.
fn shown_to(node: &Node) -> Option<String> {
    let all = node.endpoint.connections();
    let busy = all.into_iter().find(|stats| stats.requests_active > 0)?;
    Some(busy.peer?.serial)
}

#[tokio::test]
async fn what_is_under_way_outlives_the_certificates_and_the_root_that_it_began_with() {
    let (ca, next) = (Ca::new(), Ca::new());
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let old = orders.connect(&target).await;
    let slow = invoices.hold(&old).await;
    let first = [shown_to(&orders), shown_to(&invoices)];
    let nodes = [(&orders, "orders"), (&invoices, "invoices")];
    let now = SystemTime::now();
    for (node, _) in nodes {
        let both = Ca::bundles(2, &[&ca, &next]);
        node.identity.replace_bundles(both, now).unwrap();
    }
    for (node, service) in nodes {
        node.renew(&next, service);
    }
    // At once: what is on its way arrives after the old root is gone.
    for (node, _) in nodes {
        let only_next = Ca::bundles(3, &[&next]);
        node.identity.replace_bundles(only_next, now).unwrap();
    }
    for (node, before) in [(&orders, &first[0]), (&invoices, &first[1])] {
        eventually("the peer's new certificate", || {
            shown_to(node).filter(|serial| Some(serial) != before.as_ref())
        })
        .await;
    }
    orders.get(&target, "/").await.expect("new requests go on");
    assert_eq!(old.stats().requests_active, 1);
    invoices.service.go.notify_one();
    assert_eq!(body(slow).await.unwrap(), id("orders").to_string());
    for (node, _) in nodes {
        assert_eq!(node.endpoint.enforced().borrow().cut, 0);
    }
}

#[tokio::test]
async fn what_is_under_way_goes_on_past_the_end_of_a_certificate_that_was_renewed_in_time() {
    let ca = Ca::new();
    let life = Duration::from_secs(3);
    let orders = Node::new(&ca, "orders").await;
    let invoices = Node::with(&ca, "invoices", life, |_| {}).await;
    let began = Instant::now();
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let slow = invoices.hold(&connection).await;
    invoices.renew(&ca, "invoices");
    let closed = eventually("the end of the first certificate", || {
        let closed = connection.stats().requests_active == 0;
        (closed || began.elapsed() > life + Duration::from_millis(500)).then_some(closed)
    });
    assert!(!closed.await, "cut after {:?}", began.elapsed());
    invoices.service.go.notify_one();
    assert_eq!(body(slow).await.unwrap(), id("orders").to_string());
}

#[tokio::test]
async fn a_renewed_certificate_does_not_wash_off_that_the_first_one_is_revoked() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let slow = invoices.hold(&connection).await;
    let first = shown_to(&orders).unwrap();
    invoices.renew(&ca, "invoices");
    eventually("the new certificate", || {
        shown_to(&orders).filter(|serial| *serial != first)
    })
    .await;
    let mut bundles = Ca::bundles(2, &[&ca]);
    let mut list = RevocationList {
        edition: 1,
        ..RevocationList::default()
    };
    list.serials.insert(first);
    let domain = id("orders").trust_domain().clone();
    bundles.revoke(domain, list);
    let now = SystemTime::now();
    orders.identity.replace_bundles(bundles, now).unwrap();
    assert!(body(slow).await.unwrap_err().is_connection());
    let reason = connection.stats().retired;
    assert_eq!(orders.endpoint.enforced().borrow().cut, 1, "{reason:?}");
}
