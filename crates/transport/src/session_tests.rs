//! The TLS sessions of both sides of one QUIC connection, with nothing in between.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};
use weft_certs::tls::{
    ClientAuth, ClientSessions, Failure, KeyExchange, ServerSessions, server_name,
};
use weft_certs::{
    Clock, ExpectedPeer, IdentitySource, RevocationList, SpiffeId, TrustBundle, TrustDomain,
    X509Svid,
};

use super::*;
use crate::ALPN;

const HOUR: Duration = Duration::from_secs(3600);

fn params(uri: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + HOUR).into();
    params
}

fn id() -> SpiffeId {
    SpiffeId::parse("spiffe://weft.local/ns/default/sa/invoices").unwrap()
}

/// One identity, at both ends: it dials itself.
fn identities() -> (Arc<IdentitySource>, Arc<IdentitySource>) {
    let [root_key, issuing_key, key] = [(); 3].map(|()| KeyPair::generate().unwrap());
    let authority = |name: &str| {
        let mut authority = params("spiffe://weft.local");
        authority
            .distinguished_name
            .push(DnType::CommonName, name.to_owned());
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        authority
    };
    let root: CertificateDer<'static> = authority("root").self_signed(&root_key).unwrap().into();
    let issuer = Issuer::from_ca_cert_der(&root, &root_key).unwrap();
    let issuing: CertificateDer<'static> = authority("issuing")
        .signed_by(&issuing_key, &issuer)
        .unwrap()
        .into();
    let mut leaf = params(id().as_str());
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let issuer = Issuer::from_ca_cert_der(&issuing, &issuing_key).unwrap();
    let leaf = leaf.signed_by(&key, &issuer).unwrap().into();
    let chain = vec![leaf, issuing];
    let svid = X509Svid::new(chain, zeroize::Zeroizing::new(key.serialize_der())).unwrap();
    let bundle = TrustBundle {
        trust_domain: TrustDomain::parse("weft.local").unwrap(),
        sequence: 1,
        roots: vec![root],
        jwt_keys: Vec::new(),
    };
    let source = || IdentitySource::new(svid.clone(), bundle.clone().into());
    (source(), source())
}

struct Lab {
    client: Arc<IdentitySource>,
    server: Arc<IdentitySource>,
    dialled: Arc<ClientSessions>,
    accepted: Arc<ServerSessions>,
    /// Sessions that survive every change.
    careless: Arc<rustls::server::ServerSessionMemoryCache>,
}

impl Lab {
    fn new() -> Self {
        let ((client, server), clock) = (identities(), Arc::new(SystemTime::now) as Clock);
        let kind = KeyExchange::Preferred;
        Self {
            dialled: ClientSessions::new(client.clone(), kind, clock.clone(), 4),
            accepted: ServerSessions::new(server.clone(), kind, clock, 4),
            careless: rustls::server::ServerSessionMemoryCache::new(4),
            client,
            server,
        }
    }

    fn dial(&self) -> (Resumable<rustls::ClientConfig>, Failure) {
        let failure = Failure::default();
        let (addr, expected) = (([127, 0, 0, 1], 1).into(), ExpectedPeer::from(id()));
        let dial = self
            .dialled
            .config(addr, expected, &[ALPN], failure.clone());
        (dial, failure)
    }

    fn accept(&self) -> Resumable<rustls::ServerConfig> {
        let observer = Arc::new(|_: &weft_certs::VerifyError| {});
        let mut accept = self
            .accepted
            .config(ClientAuth::Required, &[ALPN], observer);
        accept.config.session_storage = self.careless.clone();
        accept
    }
}

/// Tells one end that the other's certificate is revoked.
fn revoke(at: &IdentitySource) {
    let now = at.current();
    let mut bundles = now.bundles.as_ref().clone();
    let list = RevocationList {
        serials: [now.svid.serial().to_owned()].into(),
        ..RevocationList::default()
    };
    bundles.revoke(TrustDomain::parse("weft.local").unwrap(), list);
    at.replace_bundles(bundles, SystemTime::now()).unwrap();
}

type Ends = (Box<dyn Session>, Box<dyn Session>);

/// Bytes of TLS that each side has said, the client first.
type Said = [usize; 2];

/// Says all that one side has to say.
fn speak(
    from: &mut Box<dyn Session>,
    to: &mut Box<dyn Session>,
    said: &mut usize,
) -> Result<(), TransportError> {
    loop {
        let mut wire = Vec::new();
        let keys = from.write_handshake(&mut wire);
        if keys.is_none() && wire.is_empty() {
            return Ok(());
        }
        *said += wire.len();
        to.read_handshake(&wire)?;
    }
}

/// Runs a handshake; what the first error was, and which side had it.
fn meet(
    dial: Resumable<rustls::ClientConfig>,
    accept: Resumable<rustls::ServerConfig>,
) -> (Ends, Result<(), (Side, TransportError)>) {
    let (ends, outcome) = overhear(dial, accept);
    (ends, outcome.map(drop))
}

/// The same, and how much was said.
fn overhear(
    dial: Resumable<rustls::ClientConfig>,
    accept: Resumable<rustls::ServerConfig>,
) -> (Ends, Result<Said, (Side, TransportError)>) {
    let (client, server) = (ClientTls::new(dial), ServerTls::new(accept));
    let (client, server) = (Arc::new(client.unwrap()), Arc::new(server.unwrap()));
    // Nothing said is the default of everything (RFC 9000 §18.2).
    let params = TransportParameters::read(Side::Server, &mut Cursor::new(&[][..])).unwrap();
    let name = server_name(&id());
    let mut client = client.start_session(V1, &name.to_str(), &params).unwrap();
    let mut server = server.start_session(V1, &params);
    let mut said = [0; 2];
    for _ in 0..6 {
        if let Err(error) = speak(&mut client, &mut server, &mut said[0]) {
            return ((client, server), Err((Side::Server, error)));
        }
        if let Err(error) = speak(&mut server, &mut client, &mut said[1]) {
            return ((client, server), Err((Side::Client, error)));
        }
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    ((client, server), Ok(said))
}

fn resumed(session: &dyn Session) -> bool {
    let data = session.handshake_data().unwrap();
    data.downcast::<HandshakeData>().unwrap().negotiated.resumed
}

#[test]
fn a_session_is_resumed_and_both_ends_know() {
    let lab = Lab::new();
    for expected in [false, true, true] {
        let ((client, server), outcome) = meet(lab.dial().0, lab.accept());
        assert_eq!(outcome, Ok(()));
        let both = (resumed(client.as_ref()), resumed(server.as_ref()));
        assert_eq!(both, (expected, expected));
        assert!(client.peer_identity().is_some() && server.peer_identity().is_some());
    }
}

/// Before the server has answered anything: the keys of data never exist.
#[test]
fn a_resumed_client_that_is_revoked_is_refused_by_its_first_message() {
    let lab = Lab::new();
    meet(lab.dial().0, lab.accept()).1.unwrap();
    let (dial, _) = lab.dial();
    revoke(&lab.server);
    let ((client, server), outcome) = meet(dial, lab.accept());
    let (side, error) = outcome.unwrap_err();
    assert_eq!(side, Side::Server);
    // certificate_revoked (RFC 8446 §6.2).
    assert_eq!(error.code, TransportErrorCode::crypto(44));
    assert!(client.is_handshaking() && server.is_handshaking());
}

#[test]
fn a_resumed_server_that_is_revoked_is_refused_before_the_dialling_side_says_its_last() {
    let lab = Lab::new();
    meet(lab.dial().0, lab.accept()).1.unwrap();
    let (dial, failure) = lab.dial();
    revoke(&lab.client);
    let (_, outcome) = meet(dial, lab.accept());
    let (side, error) = outcome.unwrap_err();
    assert_eq!(side, Side::Client);
    assert_eq!(error.code, TransportErrorCode::crypto(44));
    assert_eq!(failure.get().unwrap().reason(), "revoked");
}

#[test]
fn who_has_no_recheck_resumes_nothing() {
    let lab = Lab::new();
    meet(lab.dial().0, lab.accept()).1.unwrap();
    let dial = Resumable::never(lab.dial().0.config);
    let (side, error) = meet(dial, lab.accept()).1.unwrap_err();
    assert_eq!(side, Side::Client);
    // certificate_required.
    assert_eq!(error.code, TransportErrorCode::crypto(116));

    let accept = Resumable::never(lab.accept().config);
    meet(lab.dial().0, lab.accept()).1.unwrap();
    let (side, error) = meet(lab.dial().0, accept).1.unwrap_err();
    assert_eq!(
        (side, error.code),
        (Side::Server, TransportErrorCode::crypto(116))
    );
}

/// Prints what both sides of a handshake cost, without UDP: `docs/adr/0015-resumption.md` says how to run it.
#[test]
#[ignore = "a measurement"]
fn what_a_handshake_costs() {
    const ROUNDS: u32 = 500;
    let lab = Lab::new();
    let accept = || {
        let observer = Arc::new(|_: &weft_certs::VerifyError| {});
        lab.accepted.config(ClientAuth::Required, &[ALPN], observer)
    };
    for kind in ["full", "resumed"] {
        let (mut said, mut took) = ([0; 2], Duration::ZERO);
        meet(lab.dial().0, accept()).1.unwrap();
        for _ in 0..ROUNDS {
            if kind == "full" {
                lab.dialled.forget();
            }
            let began = std::time::Instant::now();
            let ((client, _), outcome) = overhear(lab.dial().0, accept());
            took += began.elapsed();
            said = outcome.unwrap();
            assert_eq!(resumed(client.as_ref()), kind == "resumed");
        }
        let each = took / ROUNDS;
        println!(
            "{kind}: {each:?} of CPU, both sides; {} and {} bytes",
            said[0], said[1]
        );
    }
}
