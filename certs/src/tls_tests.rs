//! Handshakes between two rustls connections in memory.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;
use std::time::SystemTime;

use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, NamedGroup, ServerConfig, ServerConnection,
};

use super::*;
use crate::testing::{Ca, INVOICES, ORDERS, hours, id, now};
use crate::{ExpectedPeer, IdentitySource, RootPin, X509Svid};

const CONTROL: &str = "spiffe://weft.local/ns/weft-system/sa/control";
const ALPN: &[&[u8]] = &[b"h3"];

fn clock(at: SystemTime) -> Clock {
    Arc::new(move || at)
}

/// Reasons that the server's observer heard.
type Heard = Arc<Mutex<Vec<&'static str>>>;

fn server(source: &Arc<IdentitySource>, client_auth: ClientAuth) -> (Arc<ServerConfig>, Heard) {
    let heard = Heard::default();
    let ear = heard.clone();
    let observer: Observer =
        Arc::new(move |error: &VerifyError| ear.lock().unwrap().push(error.reason()));
    (
        Arc::new(server_config(
            source.clone(),
            client_auth,
            ALPN,
            KeyExchange::Preferred,
            clock(now()),
            observer,
        )),
        heard,
    )
}

fn client(source: &Arc<IdentitySource>, expected: &str) -> (Arc<ClientConfig>, Failure) {
    let failure = Failure::default();
    let expected = ExpectedPeer::from(id(expected));
    (
        Arc::new(client_config(
            source.clone(),
            expected,
            ALPN,
            KeyExchange::Preferred,
            clock(now()),
            failure.clone(),
        )),
        failure,
    )
}

/// Runs a handshake to its end on both sides. Left: what the client says, right: what the server says.
fn handshake(
    client: &Arc<ClientConfig>,
    server: &Arc<ServerConfig>,
) -> (
    Result<ClientConnection, rustls::Error>,
    Result<ServerConnection, rustls::Error>,
) {
    let mut client = ClientConnection::new(client.clone(), server_name(&id(INVOICES))).unwrap();
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let (mut client_error, mut server_error) = (None, None);
    for _ in 0..10 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() && server_error.is_none() {
            server.read_tls(&mut wire).unwrap();
            server_error = server.process_new_packets().err();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() && client_error.is_none() {
            client.read_tls(&mut wire).unwrap();
            client_error = client.process_new_packets().err();
        }
    }
    (
        client_error.map_or(Ok(client), Err),
        server_error.map_or(Ok(server), Err),
    )
}

fn two(root: &Ca) -> (Arc<IdentitySource>, Arc<IdentitySource>) {
    let issuing = root.issuing();
    let source = |name| IdentitySource::new(issuing.svid(name), root.bundles());
    (source(ORDERS), source(INVOICES))
}

#[test]
fn both_sides_learn_who_the_other_is() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let ((server, heard), (client, failure)) = (
        server(&invoices, ClientAuth::Required),
        client(&orders, INVOICES),
    );
    let (client, server) = handshake(&client, &server);
    let (client, server) = (client.unwrap(), server.unwrap());
    let seen_by_client = peer_identity(client.peer_certificates().unwrap()).unwrap();
    let seen_by_server = peer_identity(server.peer_certificates().unwrap()).unwrap();
    assert_eq!(
        (seen_by_client.id, seen_by_server.id),
        (id(INVOICES), id(ORDERS))
    );
    assert_eq!(seen_by_client.serial, invoices.current().svid.serial());
    assert_eq!(client.alpn_protocol(), Some(&b"h3"[..]));
    assert_eq!(
        client.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
    assert_eq!(
        server.server_name(),
        Some(server_name(&id(INVOICES)).to_str().as_ref())
    );
    assert!(heard.lock().unwrap().is_empty() && failure.get().is_none());
}

#[test]
fn the_post_quantum_hybrid_is_preferred() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let (client, _) = handshake(
        &client(&orders, INVOICES).0,
        &server(&invoices, ClientAuth::Required).0,
    );
    let group = client
        .unwrap()
        .negotiated_key_exchange_group()
        .unwrap()
        .name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

/// A client that knows no hybrid. It gets no further than its first message.
fn classical() -> Arc<ClientConfig> {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups = vec![aws_lc_rs::kx_group::X25519];
    let config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    Arc::new(config)
}

#[test]
fn where_the_hybrid_is_required_a_peer_without_it_is_refused() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let strict = Arc::new(server_config(
        invoices.clone(),
        ClientAuth::Required,
        ALPN,
        KeyExchange::Required,
        clock(now()),
        Arc::new(|_| {}),
    ));
    let (_, refused) = handshake(&classical(), &strict);
    let no_group = rustls::PeerIncompatible::NoKxGroupsInCommon;
    assert_eq!(
        refused.unwrap_err(),
        rustls::Error::PeerIncompatible(no_group)
    );
    let (ours, _) = handshake(&client(&orders, INVOICES).0, &strict);
    let group = ours
        .unwrap()
        .negotiated_key_exchange_group()
        .unwrap()
        .name();
    assert_eq!(group, NamedGroup::X25519MLKEM768);
}

#[test]
fn ciphers_are_in_the_order_that_the_cpu_is_fast_at() {
    let first = |has_aes| cipher_order(has_aes)[0].suite();
    assert_eq!(first(true), rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    assert_eq!(
        first(false),
        rustls::CipherSuite::TLS13_CHACHA20_POLY1305_SHA256
    );
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let (client, _) = handshake(
        &client(&orders, INVOICES).0,
        &server(&invoices, ClientAuth::Required).0,
    );
    let agreed = client.unwrap().negotiated_cipher_suite().unwrap().suite();
    assert_eq!(agreed, first(has_aes()));
}

#[test]
fn the_next_handshake_shows_the_rotated_svid_under_the_same_configs() {
    let root = Ca::root("weft.local");
    let (orders, invoices) = two(&root);
    let (server, client) = (
        server(&invoices, ClientAuth::Required).0,
        client(&orders, INVOICES).0,
    );
    handshake(&client, &server).0.unwrap();
    invoices.replace_svid(root.svid(INVOICES), now()).unwrap();
    orders.replace_svid(root.svid(ORDERS), now()).unwrap();
    let (client, server) = handshake(&client, &server);
    let serial =
        |certs: Option<&[CertificateDer<'_>]>| peer_identity(certs.unwrap()).unwrap().serial;
    assert_eq!(
        serial(client.unwrap().peer_certificates()),
        invoices.current().svid.serial()
    );
    assert_eq!(
        serial(server.unwrap().peer_certificates()),
        orders.current().svid.serial()
    );
}

#[test]
fn nothing_is_resumed() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let (server, client) = (
        server(&invoices, ClientAuth::Required).0,
        client(&orders, INVOICES).0,
    );
    for _ in 0..3 {
        let (client, server) = handshake(&client, &server);
        assert_eq!(
            client.unwrap().handshake_kind(),
            Some(HandshakeKind::Full),
            "client"
        );
        assert_eq!(
            server.unwrap().handshake_kind(),
            Some(HandshakeKind::Full),
            "server"
        );
    }
    assert_eq!(
        (server.send_tls13_tickets, server.max_early_data_size),
        (0, 0)
    );
    assert!(!client.enable_early_data);
}

#[test]
fn tickets_of_a_server_that_hands_them_out_are_not_used() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let mut generous = (*server(&invoices, ClientAuth::Required).0).clone();
    generous.session_storage = rustls::server::ServerSessionMemoryCache::new(8);
    generous.send_tls13_tickets = 2;
    let (server, client) = (Arc::new(generous), client(&orders, INVOICES).0);
    for _ in 0..2 {
        let (client, _) = handshake(&client, &server);
        assert_eq!(client.unwrap().handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[test]
fn a_server_of_another_service_is_not_talked_to() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let (client, failure) = client(&orders, ORDERS);
    let (client, server) = handshake(&client, &server(&invoices, ClientAuth::Required).0);
    assert!(client.is_err());
    assert_eq!(failure.get().unwrap().reason(), "wrong_identity");
    let Err(rustls::Error::AlertReceived(alert)) = server else {
        panic!("{server:?}")
    };
    assert_eq!(alert_reason(u8::from(alert)), Some("wrong_identity"));
}

#[test]
fn a_server_of_another_authority_is_not_talked_to() {
    let (orders, _) = two(&Ca::root("weft.local"));
    let (_, impostor) = two(&Ca::root("weft.local"));
    let (client, failure) = client(&orders, INVOICES);
    assert!(
        handshake(&client, &server(&impostor, ClientAuth::Required).0)
            .0
            .is_err()
    );
    assert_eq!(failure.get().unwrap().reason(), "unknown_authority");
}

#[test]
fn a_client_of_another_authority_is_refused_and_counted() {
    let (_, invoices) = two(&Ca::root("weft.local"));
    let other = Ca::root("weft.local");
    // It trusts our root, so that the server's refusal is what is seen.
    let impostor = IdentitySource::new(other.svid(ORDERS), (*invoices.current().bundles).clone());
    for client_auth in [ClientAuth::Required, ClientAuth::Optional] {
        let (server, heard) = server(&invoices, client_auth);
        let (client, server) = handshake(&client(&impostor, INVOICES).0, &server);
        assert!(server.is_err());
        assert_eq!(*heard.lock().unwrap(), ["unknown_authority"]);
        let Err(rustls::Error::AlertReceived(alert)) = client else {
            panic!("{client:?}")
        };
        assert_eq!(alert_reason(u8::from(alert)), Some("unknown_authority"));
    }
}

#[test]
fn the_clock_is_the_nodes_own() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let heard = Heard::default();
    let ear = heard.clone();
    let observer: Observer =
        Arc::new(move |error: &VerifyError| ear.lock().unwrap().push(error.reason()));
    let late = clock(now() + hours(2));
    let server = Arc::new(server_config(
        invoices.clone(),
        ClientAuth::Required,
        ALPN,
        KeyExchange::Preferred,
        late.clone(),
        observer,
    ));
    assert!(handshake(&client(&orders, INVOICES).0, &server).1.is_err());
    assert_eq!(*heard.lock().unwrap(), ["expired"]);

    let failure = Failure::default();
    let early = clock(now() - hours(2));
    let client = Arc::new(client_config(
        orders,
        id(INVOICES).into(),
        ALPN,
        KeyExchange::Preferred,
        early,
        failure.clone(),
    ));
    assert!(handshake(&client, &server).0.is_err());
    assert_eq!(failure.get().unwrap().reason(), "not_yet_valid");
}

/// Shows a certificate whose key it does not have.
#[derive(Debug)]
struct Thief(Arc<CertifiedKey>);

impl ResolvesServerCert for Thief {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }
}

#[test]
fn a_server_without_the_key_of_its_certificate_is_not_talked_to() {
    let (orders, invoices) = two(&Ca::root("weft.local"));
    let stolen = invoices.current().svid.chain().to_vec();
    let own_key = orders.current().svid.certified().key.clone();
    let mut server = (*server(&invoices, ClientAuth::Required).0).clone();
    server.cert_resolver = Arc::new(Thief(Arc::new(CertifiedKey::new(stolen, own_key))));
    let (client, failure) = client(&orders, INVOICES);
    assert!(handshake(&client, &Arc::new(server)).0.is_err());
    assert_eq!(failure.get().unwrap().reason(), "bad_signature");
}

/// A control node that sends its root along.
fn control(root: &Ca) -> Arc<IdentitySource> {
    let svid: X509Svid = root.issuing().svid_with_root(CONTROL, root);
    IdentitySource::new(svid, root.bundles())
}

fn join(pin: RootPin, expected: &str) -> (Arc<ClientConfig>, Failure) {
    let failure = Failure::default();
    (
        Arc::new(join_config(
            pin,
            id(expected),
            ALPN,
            KeyExchange::Preferred,
            clock(now()),
            failure.clone(),
        )),
        failure,
    )
}

#[test]
fn a_joiner_without_identity_reaches_a_control_node_of_the_pinned_root() {
    let root = Ca::root("weft.local");
    let (client, _) = join(RootPin::of(&root.der).unwrap(), CONTROL);
    let (client, server) = handshake(&client, &server(&control(&root), ClientAuth::Optional).0);
    client.unwrap();
    assert!(server.unwrap().peer_certificates().is_none());
}

#[test]
fn a_client_without_certificate_gets_no_further_where_one_is_required() {
    let root = Ca::root("weft.local");
    let (client, _) = join(RootPin::of(&root.der).unwrap(), CONTROL);
    let (client, server) = handshake(&client, &server(&control(&root), ClientAuth::Required).0);
    assert_eq!(server.unwrap_err(), rustls::Error::NoCertificatesPresented);
    let Err(rustls::Error::AlertReceived(alert)) = client else {
        panic!("{client:?}")
    };
    assert_eq!(alert_reason(u8::from(alert)), Some("no_certificate"));
}

#[test]
fn a_joiner_turns_away_from_whatever_the_pin_does_not_name() {
    let (root, other) = (Ca::root("weft.local"), Ca::root("weft.local"));
    let pin = RootPin::of(&root.der).unwrap();
    let issuing = root.issuing();
    let with = |svid: X509Svid| IdentitySource::new(svid, root.bundles());
    let leaf_pin = RootPin::of(&issuing.svid(CONTROL).chain()[0]).unwrap();
    let cases = [
        ("another root", pin, CONTROL, control(&other), "wrong_pin"),
        (
            "a sidecar, which does not send its root",
            pin,
            CONTROL,
            with(issuing.svid(INVOICES)),
            "wrong_identity",
        ),
        (
            "root not sent",
            pin,
            CONTROL,
            with(issuing.svid(CONTROL)),
            "wrong_pin",
        ),
        (
            "not the control node",
            pin,
            CONTROL,
            with(issuing.svid_with_root(ORDERS, &root)),
            "wrong_identity",
        ),
        (
            "pinned root sent, but it did not sign",
            pin,
            CONTROL,
            with(other.issuing().svid_with_root(CONTROL, &root)),
            "unknown_authority",
        ),
        (
            "the pin of some leaf",
            leaf_pin,
            CONTROL,
            control(&root),
            "wrong_pin",
        ),
        (
            "another trust domain",
            pin,
            "spiffe://other/ns/weft-system/sa/control",
            control(&root),
            "unknown_trust_domain",
        ),
    ];
    for (what, pin, expected, server_identity, reason) in cases {
        let (client, failure) = join(pin, expected);
        let (client, _) = handshake(&client, &server(&server_identity, ClientAuth::Optional).0);
        assert!(client.is_err(), "{what}");
        assert_eq!(
            failure.get().map(VerifyError::reason),
            Some(reason),
            "{what}"
        );
    }
}

#[test]
fn the_name_in_the_handshake_depends_on_the_identity_and_shows_nothing_of_it() {
    let (a, b) = (server_name(&id(INVOICES)), server_name(&id(ORDERS)));
    assert_ne!(a, b);
    let text = a.to_str();
    assert!(
        text.ends_with(".id.weft.internal") && text.len() == 32 + 17 && !text.contains("invoices"),
        "{text}"
    );
}
