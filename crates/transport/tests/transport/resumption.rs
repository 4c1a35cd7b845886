//! Redials of a peer that was known, and what no ticket helps against.

use std::time::{Duration, SystemTime};

use tokio::time::timeout;
use weft_certs::tls::ClientAuth;
use weft_certs::{RevocationList, RevokedIdentity, TrustDomain};
use weft_transport::{
    ConnectionStats, Direction, JoinConfig, KeyExchange, RequestError, Target, join_connection,
};

use crate::lab::{Ca, LONG, Node, PROMPT, eventually, id, pair, request_on};

const INBOUND_RESUMED: (Direction, &str) = (Direction::Inbound, "resumed");
const INBOUND_FULL: (Direction, &str) = (Direction::Inbound, "full");

/// Calls, waits for the ticket, and then for the end of the connection, which `server` asks for. The facts of it.
async fn call_and_part(client: &Node, server: &Node, target: &Target) -> ConnectionStats {
    let connection = client.connect(target).await;
    client.get(target, "/").await.unwrap();
    eventually("a ticket", || {
        (client.endpoint.sessions().0 == 1).then_some(())
    })
    .await;
    let stats = connection.stats();
    drop(connection);
    part(client, server).await;
    stats
}

async fn part(client: &Node, server: &Node) {
    server.endpoint.leave();
    eventually("both ends to let go", || {
        let none =
            client.endpoint.connections().is_empty() && server.endpoint.connections().is_empty();
        none.then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_redial_is_resumed_and_both_sides_see_the_same_peers() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let first = call_and_part(&orders, &invoices, &target).await;
    assert!(!first.negotiated.resumed);
    assert_eq!(invoices.endpoint.sessions(), (0, 1));

    let connection = orders.connect(&target).await;
    let again = connection.stats();
    assert!(again.negotiated.resumed, "{again:?}");
    assert_eq!(again.negotiated.key_exchange, "X25519MLKEM768");
    assert_eq!(again.peer, first.peer);
    let peer = again.peer.as_ref().unwrap();
    let theirs = invoices.identity.current();
    // The end of a connection follows from this.
    assert_eq!(peer.not_after, theirs.svid.not_after());
    assert_eq!(peer.serial, theirs.svid.serial());
    // The service says whom it sees. A server that is leaving may want the request on one more connection.
    let seen = orders.get(&target, "/").await.unwrap();
    assert_eq!(seen, id("orders").to_string());
    for (node, direction) in [
        (&orders, Direction::Outbound),
        (&invoices, Direction::Inbound),
    ] {
        let counts = node.endpoint.handshakes();
        assert_eq!(counts[&(direction, "full")], 1, "{direction}");
        assert!(counts[&(direction, "resumed")] >= 1, "{direction}");
    }
}

#[tokio::test]
async fn a_new_svid_of_either_side_makes_the_next_handshake_a_full_one() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    for (node, service) in [(&orders, "orders"), (&invoices, "invoices")] {
        call_and_part(&orders, &invoices, &target).await;
        node.renew(&ca, service);
        let next = call_and_part(&orders, &invoices, &target).await;
        assert!(!next.negotiated.resumed, "after that of {service}");
        let peer = next.peer.unwrap();
        assert_eq!(peer.serial, invoices.identity.current().svid.serial());
    }
}

#[tokio::test]
async fn who_is_revoked_is_refused_in_spite_of_a_ticket() {
    let ca = Ca::new();
    for revoked in ["orders", "invoices"] {
        let (orders, invoices) = pair(&ca).await;
        let target = invoices.target("invoices");
        call_and_part(&orders, &invoices, &target).await;
        assert_eq!(orders.endpoint.sessions().0, 1);
        let list = RevocationList {
            identities: [(id(revoked), RevokedIdentity::default())].into(),
            ..RevocationList::default()
        };
        let mut bundles = Ca::bundles(2, &[&ca]);
        bundles.revoke(TrustDomain::parse("weft.local").unwrap(), list);
        let judge = if revoked == "orders" {
            &invoices
        } else {
            &orders
        };
        judge
            .identity
            .replace_bundles(bundles, SystemTime::now())
            .unwrap();
        orders.get(&target, "/").await.unwrap_err();
        assert_eq!(judge.refusal("revoked").await, 1, "{revoked}");
    }
}

#[tokio::test]
async fn a_root_that_is_dropped_ends_what_it_vouched_for_in_spite_of_a_ticket() {
    let (ca, other) = (Ca::new(), Ca::new());
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    call_and_part(&orders, &invoices, &target).await;
    let new = other.svid("invoices", LONG);
    invoices
        .identity
        .replace(new, Ca::bundles(2, &[&other]), SystemTime::now())
        .unwrap();
    let trusting = Ca::bundles(2, &[&ca, &other]);
    orders
        .identity
        .replace_bundles(trusting, SystemTime::now())
        .unwrap();
    orders.get(&target, "/").await.unwrap_err();
    assert_eq!(invoices.refusal("unknown_authority").await, 1);
}

#[tokio::test]
async fn a_ticket_is_not_used_for_who_should_be_somebody_else() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    call_and_part(&orders, &invoices, &invoices.target("invoices")).await;
    let error = orders
        .get(&invoices.target("ledger"), "/")
        .await
        .unwrap_err();
    let RequestError::Dial(error) = error else {
        panic!("{error}")
    };
    assert_eq!(error.reason(), "wrong_identity");
    assert_eq!(invoices.endpoint.handshakes()[&INBOUND_RESUMED], 0);
}

#[tokio::test]
async fn a_server_that_has_restarted_is_reached_by_a_full_handshake_at_the_first_attempt() {
    let ca = Ca::new();
    let orders = Node::new(&ca, "orders").await;
    let before = Node::new(&ca, "invoices").await;
    let target = before.target("invoices");
    call_and_part(&orders, &before, &target).await;
    before.endpoint.drain(Duration::ZERO).await;
    before.tasks.token().cancel();
    let addr = before.addr();
    drop(before);
    // The port is let go of a moment later, and nothing tells of it.
    let again = async {
        loop {
            if let Some(node) = Node::try_at(&ca, "invoices", addr).await {
                return node;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let after = timeout(PROMPT, again).await.expect("the port again");
    assert_eq!(orders.endpoint.sessions().0, 1);
    orders.get(&target, "/").await.unwrap();
    let counts = after.endpoint.handshakes();
    assert_eq!((counts[&INBOUND_FULL], counts[&INBOUND_RESUMED]), (1, 0));
    assert!(orders.endpoint.refusals().is_empty());
}

#[tokio::test]
async fn no_room_for_sessions_is_no_resumption() {
    let ca = Ca::new();
    let orders = Node::with(&ca, "orders", LONG, |config| config.limits.max_sessions = 0).await;
    let invoices = Node::new(&ca, "invoices").await;
    let target = invoices.target("invoices");
    for _ in 0..2 {
        orders.get(&target, "/").await.unwrap();
        part(&orders, &invoices).await;
    }
    let counts = invoices.endpoint.handshakes();
    assert_eq!((counts[&INBOUND_FULL], counts[&INBOUND_RESUMED]), (2, 0));
}

#[tokio::test]
async fn who_joins_and_who_comes_over_tcp_gets_no_ticket() {
    let ca = Ca::new();
    let control = Node::with(&ca, "control", LONG, |config| {
        config.client_auth = ClientAuth::Optional;
    })
    .await;
    let orders = Node::new(&ca, "orders").await;
    let join = JoinConfig {
        pin: ca.pin(),
        expected: id("control"),
        key_exchange: KeyExchange::Preferred,
        fallback: false,
    };
    for _ in 0..2 {
        let connection = join_connection(&orders.env, &orders.tasks, control.addr(), &join)
            .await
            .unwrap();
        assert_eq!(request_on(&connection, "/").await.unwrap(), "nobody");
    }
    assert_eq!(control.endpoint.sessions().1, 0);
    assert_eq!(control.endpoint.handshakes()[&INBOUND_FULL], 2);
}
