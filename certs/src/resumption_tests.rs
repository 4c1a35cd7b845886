//! Handshakes between two rustls connections in memory, the second of which may be a resumed one.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::sync::Mutex;

use rustls::server::ServerSessionMemoryCache;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::*;
use crate::testing::{Ca, INVOICES, ORDERS, hours, id, now};
use crate::tls::{ClientAuth, Failure, KeyExchange, join_config, peer_identity, server_name};
use crate::{
    BundleSet, ExpectedPeer, IdentitySource, PeerIdentity, RevocationList, RevokedIdentity,
    RootPin, SpiffeId,
};

const ALPN: &[&[u8]] = &[b"h3"];
const MINUTE: Duration = Duration::from_secs(60);

fn addr(last: u8) -> SocketAddr {
    ([10, 0, 0, last], 15008).into()
}

/// `orders` dials `invoices`; both have one clock.
struct Lab {
    root: Ca,
    orders: Arc<IdentitySource>,
    invoices: Arc<IdentitySource>,
    time: Arc<Mutex<SystemTime>>,
    dialled: Arc<ClientSessions>,
    accepted: Arc<ServerSessions>,
}

fn clock(time: &Arc<Mutex<SystemTime>>) -> Clock {
    let time = time.clone();
    Arc::new(move || *time.lock().unwrap())
}

impl Lab {
    fn new() -> Self {
        Self::with_room(8)
    }

    fn with_room(most: usize) -> Self {
        let root = Ca::root("weft.local");
        let source = |name| IdentitySource::new(root.svid(name), root.bundles());
        let (orders, invoices) = (source(ORDERS), source(INVOICES));
        let time = Arc::new(Mutex::new(now()));
        let kind = KeyExchange::Required;
        Self {
            dialled: ClientSessions::new(orders.clone(), kind, clock(&time), most),
            accepted: ServerSessions::new(invoices.clone(), kind, clock(&time), most),
            root,
            orders,
            invoices,
            time,
        }
    }

    fn pass(&self, time: Duration) {
        *self.time.lock().unwrap() += time;
    }

    fn dial(&self, expected: &str) -> (Resumable<ClientConfig>, Failure) {
        self.dial_at(addr(1), expected)
    }

    fn dial_at(&self, addr: SocketAddr, expected: &str) -> (Resumable<ClientConfig>, Failure) {
        let failure = Failure::default();
        let expected = ExpectedPeer::from(id(expected));
        let config = self.dialled.config(addr, expected, ALPN, failure.clone());
        (config, failure)
    }

    fn accept(&self) -> Resumable<ServerConfig> {
        self.accepted
            .config(ClientAuth::Required, ALPN, Arc::new(|_| {}))
    }

    fn meet(&self) -> Met {
        meet(self.dial(INVOICES).0, self.accept(), &id(INVOICES))
    }

    /// A second meeting of a resumed session, which `change` happens before; the stores on both sides are such that
    /// know nothing of changes, so that the recheck is all that is left.
    fn meet_again_after(&self, change: impl FnOnce(&Self)) -> (Met, Failure) {
        let careless = ServerSessionMemoryCache::new(8);
        let accept = || {
            let mut accept = self.accept();
            accept.config.session_storage = careless.clone();
            accept
        };
        let first = meet(self.dial(INVOICES).0, accept(), &id(INVOICES));
        assert_eq!(first.kinds(), FULL);
        // The ticket is taken out before anything changes.
        let (dial, failure) = self.dial(INVOICES);
        change(self);
        (meet(dial, accept(), &id(INVOICES)), failure)
    }
}

type Kinds = (Option<HandshakeKind>, Option<HandshakeKind>);
const FULL: Kinds = (Some(HandshakeKind::Full), Some(HandshakeKind::Full));
const RESUMED: Kinds = (Some(HandshakeKind::Resumed), Some(HandshakeKind::Resumed));

/// How both ends of a handshake stand, and what the rechecks said.
struct Met {
    client: ClientConnection,
    server: ServerConnection,
    errors: (Option<rustls::Error>, Option<rustls::Error>),
    refused: (Option<&'static str>, Option<&'static str>),
}

impl Met {
    fn kinds(&self) -> Kinds {
        assert_eq!(self.errors, (None, None));
        (self.client.handshake_kind(), self.server.handshake_kind())
    }

    /// Whom each sees.
    fn peers(&self) -> (PeerIdentity, PeerIdentity) {
        let of = |tls: &CommonState| peer_identity(tls.peer_certificates().unwrap()).unwrap();
        (of(&self.client), of(&self.server))
    }
}

/// Runs a handshake to its end. What a recheck refuses is noted and goes on, so that the other end can be seen too.
fn meet(dial: Resumable<ClientConfig>, accept: Resumable<ServerConfig>, name: &SpiffeId) -> Met {
    let client = ClientConnection::new(Arc::new(dial.config), server_name(name)).unwrap();
    let server = ServerConnection::new(Arc::new(accept.config)).unwrap();
    let mut met = Met {
        client,
        server,
        errors: (None, None),
        refused: (None, None),
    };
    let mut done = (false, false);
    for _ in 0..10 {
        let mut wire = Vec::new();
        while met.client.wants_write() {
            met.client.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() && met.errors.1.is_none() {
            met.server.read_tls(&mut wire).unwrap();
            met.errors.1 = met.server.process_new_packets().err();
        }
        if !done.1 && met.refused.1.is_none() {
            match accept.recheck.check(&met.server) {
                Ok(passed) => done.1 = passed,
                Err(refused) => met.refused.1 = Some(refused.error.reason()),
            }
        }
        let mut wire = Vec::new();
        while met.server.wants_write() {
            met.server.write_tls(&mut wire).unwrap();
        }
        let mut wire = wire.as_slice();
        while !wire.is_empty() && met.errors.0.is_none() {
            met.client.read_tls(&mut wire).unwrap();
            met.errors.0 = met.client.process_new_packets().err();
        }
        if !done.0 && met.refused.0.is_none() {
            match dial.recheck.check(&met.client) {
                Ok(passed) => done.0 = passed,
                Err(refused) => met.refused.0 = Some(refused.error.reason()),
            }
        }
    }
    met
}

/// Whether the first message of a dial offers a ticket: it is the last extension, `pre_shared_key` (RFC 8446 §4.2.11).
fn offers(dial: Resumable<ClientConfig>) -> bool {
    let config = Arc::new(dial.config);
    let mut client = ClientConnection::new(config, server_name(&id(INVOICES))).unwrap();
    let mut wire = Vec::new();
    client.write_tls(&mut wire).unwrap();
    // The binder of SHA-256 or SHA-384 is all that comes after its length.
    [32_usize, 48].iter().any(|len| {
        let at = wire.len() - len - 3;
        wire[at..at + 3]
            == [
                0,
                u8::try_from(len + 1).unwrap(),
                u8::try_from(*len).unwrap(),
            ]
    })
}

#[test]
fn a_redial_resumes_and_each_knows_the_other_as_before() {
    let lab = Lab::new();
    let first = lab.meet();
    assert_eq!(first.kinds(), FULL);
    for round in 0..3 {
        lab.pass(MINUTE);
        let again = lab.meet();
        assert_eq!(again.kinds(), RESUMED, "redial {round}");
        assert_eq!(again.refused, (None, None));
        assert_eq!(again.peers(), first.peers());
        assert_eq!(again.peers().0.not_after, now() + hours(1));
        let group = again.client.negotiated_key_exchange_group().unwrap().name();
        assert_eq!(
            group,
            rustls::NamedGroup::X25519MLKEM768,
            "fresh keys, by the hybrid"
        );
    }
}

#[test]
fn there_is_no_early_data() {
    let lab = Lab::new();
    lab.meet();
    let ((dial, _), accept) = (lab.dial(INVOICES), lab.accept());
    assert!(!dial.config.enable_early_data);
    assert_eq!(accept.config.max_early_data_size, 0);
    let config = Arc::new(dial.config);
    let mut client = ClientConnection::new(config, server_name(&id(INVOICES))).unwrap();
    assert!(client.early_data().is_none());
}

#[test]
fn a_ticket_is_good_once() {
    let lab = Lab::new();
    lab.meet();
    assert_eq!((lab.dialled.len(), lab.accepted.len()), (1, 1));
    drop(lab.dial(INVOICES));
    assert!(
        lab.dialled.is_empty(),
        "spent by the dial, whatever becomes of it"
    );
    assert_eq!(lab.meet().kinds(), FULL);
    assert_eq!(
        lab.accepted.len(),
        1,
        "the client's older session has made room"
    );
}

#[test]
fn a_change_of_svid_or_bundles_on_either_side_ends_all_sessions() {
    type Change = fn(&Lab);
    let cases: [(&str, Change); 4] = [
        ("the dialling side's SVID", |lab| {
            lab.orders
                .replace_svid(lab.root.svid(ORDERS), now())
                .unwrap();
        }),
        ("the accepting side's SVID", |lab| {
            lab.invoices
                .replace_svid(lab.root.svid(INVOICES), now())
                .unwrap();
        }),
        ("the dialling side's bundles", |lab| {
            lab.orders
                .replace_bundles(lab.root.bundles(), now())
                .unwrap();
        }),
        ("the accepting side's bundles", |lab| {
            lab.invoices
                .replace_bundles(lab.root.bundles(), now())
                .unwrap();
        }),
    ];
    for (what, change) in cases {
        let lab = Lab::new();
        lab.meet();
        change(&lab);
        let again = lab.meet();
        assert_eq!(again.kinds(), FULL, "{what}");
        let own = |source: &IdentitySource| source.current().svid.serial().to_owned();
        let (seen_by_client, seen_by_server) = again.peers();
        assert_eq!(seen_by_client.serial, own(&lab.invoices), "{what}");
        assert_eq!(seen_by_server.serial, own(&lab.orders), "{what}");
        assert_eq!(lab.meet().kinds(), RESUMED, "{what}, and then again");
    }
}

/// A change during a handshake: what it began under is not what its ticket would be good under.
#[test]
fn a_ticket_of_a_handshake_that_something_changed_during_is_not_kept() {
    let lab = Lab::new();
    let (dial, _) = lab.dial(INVOICES);
    let accept = lab.accept();
    lab.orders
        .replace_bundles(lab.root.bundles(), now())
        .unwrap();
    lab.invoices
        .replace_bundles(lab.root.bundles(), now())
        .unwrap();
    assert_eq!(meet(dial, accept, &id(INVOICES)).kinds(), FULL);
    assert!(lab.dialled.is_empty() && lab.accepted.is_empty());
}

fn revoking(root: &Ca, list: RevocationList) -> BundleSet {
    let mut bundles = root.bundles();
    bundles.revoke(crate::testing::td("weft.local"), list);
    bundles
}

#[test]
fn revocation_is_seen_in_spite_of_a_ticket_on_both_sides() {
    type List = fn(&IdentitySource) -> RevocationList;
    let by: [(&str, List); 3] = [
        ("identity", |who| RevocationList {
            identities: [(who.current().svid.id().clone(), RevokedIdentity::default())].into(),
            ..RevocationList::default()
        }),
        ("key", |who| RevocationList {
            keys: [who.current().svid.key_pin()].into(),
            ..RevocationList::default()
        }),
        ("serial number", |who| RevocationList {
            serials: [who.current().svid.serial().to_owned()].into(),
            ..RevocationList::default()
        }),
    ];
    for (what, list) in by {
        let lab = Lab::new();
        let (met, failure) = lab.meet_again_after(|lab| {
            let list = list(&lab.invoices);
            let bundles = revoking(&lab.root, list);
            lab.orders.replace_bundles(bundles, now()).unwrap();
        });
        assert_eq!(met.kinds(), RESUMED, "{what}: the ticket itself was good");
        assert_eq!(met.refused, (Some("revoked"), None), "server by {what}");
        assert_eq!(failure.get().unwrap().reason(), "revoked");

        let lab = Lab::new();
        let (met, _) = lab.meet_again_after(|lab| {
            let list = list(&lab.orders);
            let bundles = revoking(&lab.root, list);
            lab.invoices.replace_bundles(bundles, now()).unwrap();
        });
        assert_eq!(met.refused, (None, Some("revoked")), "client by {what}");
    }
}

#[test]
fn a_ticket_does_not_outlive_trust_in_the_root() {
    // Both trust both roots at first; then one side drops the other's.
    for drops in ["client", "server"] {
        let lab = Lab::new();
        let other = Ca::root("weft.local");
        let (met, _) = lab.meet_again_after(|lab| {
            let own = if drops == "client" {
                &lab.orders
            } else {
                &lab.invoices
            };
            let name = own.current().svid.id().to_string();
            own.replace(other.svid(&name), other.bundles(), now())
                .unwrap();
        });
        let expected = match drops {
            "client" => (Some("unknown_authority"), None),
            _ => (None, Some("unknown_authority")),
        };
        assert_eq!(met.refused, expected);
    }
}

#[test]
fn a_ticket_does_not_outlive_the_certificates() {
    let lab = Lab::new();
    let (met, failure) = lab.meet_again_after(|lab| lab.pass(hours(1) + MINUTE));
    assert_eq!(met.refused, (Some("expired"), Some("expired")));
    assert_eq!(failure.get().unwrap().reason(), "expired");
    assert_eq!(
        met.errors,
        (None, None),
        "rustls itself has nothing against it"
    );

    // The stores do not even offer it.
    let lab = Lab::new();
    lab.meet();
    let (dial, _) = lab.dial(INVOICES);
    lab.pass(hours(1));
    let met = meet(dial, lab.accept(), &id(INVOICES));
    assert_ne!(met.server.handshake_kind(), Some(HandshakeKind::Resumed));

    let lab = Lab::new();
    lab.meet();
    lab.pass(hours(1));
    assert!(!offers(lab.dial(INVOICES).0), "too old");
    let lab = Lab::new();
    lab.meet();
    lab.pass(hours(1) - MINUTE);
    assert!(offers(lab.dial(INVOICES).0), "and this is how it looks");
}

#[test]
fn a_ticket_of_one_service_is_not_offered_to_who_should_be_another() {
    let lab = Lab::new();
    lab.meet();
    let (dial, failure) = lab.dial(ORDERS);
    let met = meet(dial, lab.accept(), &id(INVOICES));
    assert_ne!(met.client.handshake_kind(), Some(HandshakeKind::Resumed));
    assert!(met.errors.0.is_some(), "a full handshake, which fails");
    assert_eq!(failure.get().unwrap().reason(), "wrong_identity");
    assert_eq!(lab.dialled.len(), 1, "that of the right one is still there");

    // Nor at another address.
    let (dial, _) = lab.dial_at(addr(2), INVOICES);
    assert_eq!(meet(dial, lab.accept(), &id(INVOICES)).kinds(), FULL);

    // Nor does the server take it under another name.
    let lab = Lab::new();
    lab.meet();
    let met = meet(lab.dial(INVOICES).0, lab.accept(), &id(ORDERS));
    assert_eq!(met.kinds(), FULL);
}

#[test]
fn a_server_that_has_forgotten_makes_a_full_handshake_of_it() {
    let mut lab = Lab::new();
    lab.meet();
    lab.accepted = ServerSessions::new(
        lab.invoices.clone(),
        KeyExchange::Required,
        clock(&lab.time),
        8,
    );
    let met = lab.meet();
    assert_eq!(met.kinds(), FULL);
    assert_eq!(met.refused, (None, None));
    assert_eq!(lab.meet().kinds(), RESUMED);
    lab.dialled.forget();
    lab.accepted.forget();
    assert_eq!(lab.meet().kinds(), FULL);
}

#[test]
fn a_refusal_of_a_full_handshake_after_a_declined_ticket_is_told_to_its_own_dial() {
    let lab = Lab::new();
    lab.meet();
    lab.accepted.forget();
    let (dial, failure) = lab.dial(INVOICES);
    let bundles = revoking(
        &lab.root,
        RevocationList {
            serials: [lab.invoices.current().svid.serial().to_owned()].into(),
            ..RevocationList::default()
        },
    );
    lab.orders.replace_bundles(bundles, now()).unwrap();
    let met = meet(dial, lab.accept(), &id(INVOICES));
    assert!(met.errors.0.is_some());
    assert_eq!(failure.get().unwrap().reason(), "revoked");
}

#[test]
fn the_bound_holds_on_both_sides_and_the_newest_stay() {
    let lab = Lab::with_room(4);
    for last in 0..9 {
        let met = meet(
            lab.dial_at(addr(last), INVOICES).0,
            lab.accept(),
            &id(INVOICES),
        );
        assert_eq!(met.kinds(), FULL);
    }
    assert_eq!(lab.dialled.len(), 4);
    // They are all of one client.
    assert_eq!(lab.accepted.len(), 1);
    let met = meet(
        lab.dial_at(addr(8), INVOICES).0,
        lab.accept(),
        &id(INVOICES),
    );
    assert_eq!(met.kinds(), RESUMED);

    // Nine clients, each of its own certificate.
    let lab = Lab::with_room(4);
    for _ in 0..9 {
        let client = IdentitySource::new(lab.root.svid(ORDERS), lab.root.bundles());
        let dialled = ClientSessions::new(client, KeyExchange::Required, clock(&lab.time), 4);
        let dial = dialled.config(addr(1), id(INVOICES).into(), ALPN, Failure::default());
        meet(dial, lab.accept(), &id(INVOICES));
    }
    assert_eq!(lab.accepted.len(), 4);
    assert_eq!(lab.accepted.names(), 4);

    let lab = Lab::with_room(0);
    lab.meet();
    assert_eq!(lab.meet().kinds(), FULL, "no room, no resumption");
}

#[test]
fn who_joins_gets_no_ticket_and_could_not_use_one() {
    let lab = Lab::new();
    let control = "spiffe://weft.local/ns/weft-system/sa/control";
    let svid = lab.root.issuing().svid_with_root(control, &lab.root);
    let source = IdentitySource::new(svid, lab.root.bundles());
    let sessions = ServerSessions::new(source, KeyExchange::Preferred, clock(&lab.time), 8);
    let join = || {
        join_config(
            RootPin::of(&lab.root.der).unwrap(),
            id(control),
            ALPN,
            KeyExchange::Preferred,
            clock(&lab.time),
            Failure::default(),
        )
    };
    let accept = || sessions.config(ClientAuth::Optional, ALPN, Arc::new(|_| {}));
    let met = meet(Resumable::never(join()), accept(), &id(control));
    assert_eq!(met.kinds(), FULL);
    assert_eq!(met.client.tls13_tickets_received(), 0);
    assert!(sessions.is_empty());

    // A server that hands tickets out to everybody, and a joiner that uses them: the recheck ends both.
    let careless = ServerSessionMemoryCache::new(8);
    let mut config = join();
    config.resumption = rustls::client::Resumption::in_memory_sessions(8);
    let meet_carelessly = || {
        let mut accept = accept();
        accept.config.session_storage = careless.clone();
        meet(Resumable::never(config.clone()), accept, &id(control))
    };
    assert_eq!(meet_carelessly().kinds(), FULL);
    let met = meet_carelessly();
    assert_eq!(met.kinds(), RESUMED);
    let none = Some("no_certificate");
    assert_eq!(met.refused, (none, none));
}

#[test]
fn nothing_secret_is_shown() {
    let lab = Lab::new();
    lab.meet();
    let shown = format!("{:?} {:?}", lab.dialled, lab.accepted);
    assert!(
        shown.contains("1 tickets") && shown.contains("1 sessions"),
        "{shown}"
    );
    assert!(!shown.contains("secret"), "{shown}");
}
