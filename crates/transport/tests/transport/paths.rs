//! What is told of a path: what the handshake agreed on, and which profile it follows.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use weft_transport::{
    Congestion, ConnectionStats, DialError, Direction, KeyExchange, Measured, Negotiated, Profile,
    RequestError,
};

use crate::lab::{Ca, LONG, Node, eventually, head, id, pair};

fn classical() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    Arc::new(provider)
}

/// A client of somebody else's that knows no hybrid. It gets no further than its first message.
fn foreign_client() -> quinn::Endpoint {
    let mut tls = rustls::ClientConfig::builder_with_provider(classical())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicClientConfig::try_from(tls).unwrap();
    let mut client = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    client.set_default_client_config(quinn::ClientConfig::new(Arc::new(tls)));
    client
}

/// A server of the same kind.
fn foreign_server() -> quinn::Endpoint {
    let signed = rcgen::generate_simple_self_signed(["a".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(signed.signing_key.serialize_der());
    let mut tls = rustls::ServerConfig::builder_with_provider(classical())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![signed.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    let tls = QuicServerConfig::try_from(tls).unwrap();
    let config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap()
}

#[tokio::test]
async fn where_the_hybrid_is_required_a_peer_without_it_is_refused_and_told_why() {
    let ca = Ca::new();
    let strict = Node::with(&ca, "invoices", LONG, |config| {
        config.key_exchange = KeyExchange::Required;
    })
    .await;
    let foreign = foreign_client();
    let refused = foreign.connect(strict.addr(), "a").unwrap().await;
    let said = refused.unwrap_err().to_string();
    assert!(said.contains("X25519MLKEM768"), "the peer is told: {said}");
    assert_eq!(strict.refusal("no_common_key_exchange").await, 1);
    let detail = strict.endpoint.recent_refusals().remove(0).detail;
    assert!(detail.contains("X25519MLKEM768"), "{detail}");
    // Others of the mesh have it, whatever they prefer.
    let orders = Node::new(&ca, "orders").await;
    orders.get(&strict.target("invoices"), "/").await.unwrap();
}

#[tokio::test]
async fn who_requires_the_hybrid_does_not_fall_back_when_it_dials() {
    let ca = Ca::new();
    let strict = Node::with(&ca, "orders", LONG, |config| {
        config.key_exchange = KeyExchange::Required;
    })
    .await;
    let foreign = foreign_server();
    let accepting = foreign.clone();
    let server = tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let _ = incoming.await;
        }
    });
    let addr: SocketAddr = foreign.local_addr().unwrap();
    let target = weft_transport::Target::new(addr, id("invoices"));
    let error = strict.get(&target, "/").await.unwrap_err();
    let RequestError::Dial(DialError::KeyExchange { .. }) = &error else {
        panic!("{error:?}");
    };
    assert!(error.to_string().contains("X25519MLKEM768"), "{error}");
    assert_eq!(strict.refusal("no_common_key_exchange").await, 1);
    foreign.close(0_u32.into(), b"");
    server.await.unwrap();
}

#[tokio::test]
async fn both_sides_tell_what_the_handshake_agreed_on() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    let exchange = connection.request(&head("/")).await.unwrap();
    let agreed = exchange.negotiated;
    assert_eq!(agreed.key_exchange, "X25519MLKEM768");
    assert!(agreed.cipher.starts_with("TLS_"), "{agreed:?}");
    assert!(!agreed.resumed);
    let other = link(&invoices, Direction::Inbound).await;
    assert_eq!((other.negotiated, other.alpn.as_str()), (agreed, "h3"));
    assert_ne!(agreed, Negotiated::default());
}

async fn link(node: &Node, direction: Direction) -> ConnectionStats {
    eventually("the connection", || {
        let mut all = node.endpoint.connections().into_iter();
        all.find(|stats| stats.direction == direction)
    })
    .await
}

#[tokio::test]
async fn a_pin_holds_for_the_peer_that_it_names_whoever_dials() {
    let ca = Ca::new();
    let orders = Node::with(&ca, "orders", LONG, |config| {
        config.pins.pin(id("invoices"), Profile::lossy());
    })
    .await;
    let invoices = Node::with(&ca, "invoices", LONG, |config| {
        let bbr = Profile {
            congestion: Congestion::Bbr,
            ..Profile::dc()
        };
        config.pins.pin(id("orders"), bbr);
    })
    .await;
    let ledger = Node::new(&ca, "ledger").await;
    let target = invoices.target("invoices");
    for node in [&orders, &ledger] {
        node.get(&target, "/").await.unwrap();
    }
    let dialled = link(&orders, Direction::Outbound).await;
    assert_eq!(
        (dialled.profile, dialled.congestion, dialled.copying),
        ("lossy", Some(Congestion::Discerning), true)
    );
    let unpinned = link(&ledger, Direction::Outbound).await;
    assert_eq!((unpinned.profile, unpinned.copying), ("auto", false));
    for (peer, profile, congestion) in [
        ("orders", "dc", Congestion::Bbr),
        ("ledger", "auto", Congestion::Discerning),
    ] {
        let all = invoices.endpoint.connections();
        let of = |stats: &&ConnectionStats| stats.peer.as_ref().is_some_and(|p| p.id == id(peer));
        let stats = all.iter().find(of).expect("a connection of each");
        assert_eq!(
            (stats.profile, stats.congestion),
            (profile, Some(congestion))
        );
        assert_eq!(
            stats.measured,
            Some(Measured::Dc),
            "loopback, whatever is pinned"
        );
    }
}

#[tokio::test]
async fn a_stream_that_must_wait_for_credit_is_told_as_blocked() {
    let ca = Ca::new();
    let (orders, invoices) = pair(&ca).await;
    let target = invoices.target("invoices");
    let connection = orders.connect(&target).await;
    // The handler waits and reads nothing: the window of the stream fills.
    let mut exchange = connection.request(&head("/wait")).await.unwrap();
    let piece = bytes::Bytes::from(vec![0; 4 << 20]);
    let sending = exchange.send.send_data(piece);
    let look = eventually("a stream that waits", || {
        let stats = connection.stats();
        (stats.blocked_streams == 1 && stats.out_of_credit > 0).then_some(stats)
    });
    let stats = tokio::select! {
        stats = look => stats,
        sent = sending => panic!("nobody reads, and it was sent: {sent:?}"),
    };
    assert!(stats.blocked > Duration::ZERO);
    assert_eq!(connection.stats().blocked_streams, 0, "it has given up");
    invoices.service.go.notify_one();
}
