//! Envoy as it is released: takes its certificates from the socket and speaks mutual TLS with weft's own TLS configs,
//! as a server and as a client, through rotations.

mod quic;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use weft_certs::tls::{
    ClientAuth, KeyExchange, client_config, peer_identity, server_config, server_name,
};
use weft_certs::{BundleSet, ExpectedPeer, IdentitySource, SpiffeId};

use crate::interop::envoy::{Envoy, Wish, program};
use crate::interop::http;
use crate::lab::*;

const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn clock() -> weft_certs::Clock {
    Arc::new(SystemTime::now)
}

/// Another node of the mesh, with weft's TLS.
fn node(ca: &Ca, name: &str, trusted: &[&Ca]) -> Arc<IdentitySource> {
    let bundles = BundleSet::from(bundle("weft.local", trusted));
    IdentitySource::new(ca.svid(name, in_an_hour()), bundles)
}

/// A call of a weft node to Envoy: the body, and the serial number of Envoy's certificate.
async fn call(from: &Arc<IdentitySource>, port: u16) -> io::Result<(String, String)> {
    let invoices = ExpectedPeer::One(id(INVOICES));
    let config = client_config(
        Arc::clone(from),
        invoices,
        &[],
        KeyExchange::Preferred,
        clock(),
        Arc::default(),
    );
    let connector = TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    let tls = connector.connect(server_name(&id(INVOICES)), tcp).await?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let serial = peer_identity(chain).unwrap().serial;
    let (status, body) = http::get(tls, "/").await?;
    assert_eq!(status, 200);
    Ok((body, serial))
}

/// Calls until Envoy shows this certificate. Every call must succeed: a rotation disturbs nobody.
async fn calls_until(from: &Arc<IdentitySource>, envoy: &Envoy, serial: &str) {
    within(async {
        loop {
            let called = call(from, envoy.inbound).await;
            let (body, shown) =
                called.unwrap_or_else(|e| panic!("a call failed: {e}; Envoy: {}", envoy.log()));
            assert_eq!(body, "from envoy");
            if shown == serial {
                return;
            }
        }
    })
    .await;
}

/// A server with weft's TLS, which notes whom it served.
struct Server {
    port: u16,
    /// Identity and serial number of the last caller.
    last: Arc<Mutex<Option<(String, String)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    async fn start(identity: Arc<IdentitySource>) -> Self {
        let config = server_config(
            identity,
            ClientAuth::Required,
            &[b"http/1.1"],
            KeyExchange::Preferred,
            clock(),
            Arc::new(|_| {}),
        );
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let last = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&last);
        let task = tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                // Whom it refuses, the caller tells.
                let _ = serve(&acceptor, tcp, &seen).await;
            }
        });
        Self { port, last, task }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    acceptor: &TlsAcceptor,
    tcp: TcpStream,
    seen: &Mutex<Option<(String, String)>>,
) -> io::Result<()> {
    let mut tls = acceptor.accept(tcp).await?;
    let chain = tls.get_ref().1.peer_certificates().unwrap_or_default();
    let peer = peer_identity(chain).unwrap();
    *seen.lock().unwrap() = Some((peer.id.to_string(), peer.serial));
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tls.read_u8().await?);
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nconnection: close\r\n\r\nfrom weft";
    tls.write_all(answer).await?;
    tls.shutdown().await
}

async fn start(program: &Path, lab: &Lab, upstream: u16, names: (&str, &str)) -> Envoy {
    let wish = Wish {
        socket: &lab.socket,
        upstream,
        peer: ORDERS,
        certificate: names.0,
        roots: names.1,
    };
    Envoy::start(program, &wish).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_serves_weft_with_certificates_from_the_socket_through_every_rotation() {
    let Some(program) = program() else { return };
    let lab = Lab::new().await;
    let envoy = start(program, &lab, 9, ("default", "ALL")).await;
    let orders = node(&lab.issuing, ORDERS, &[&lab.root]);
    calls_until(&orders, &envoy, &lab.serial()).await;
    for _ in 0..3 {
        lab.rotate();
        calls_until(&orders, &envoy, &lab.serial()).await;
    }

    // A new root: trusted by all, then used by all, then alone.
    let next = Ca::root("weft.local");
    let trust = |roots: &[&Ca]| {
        let now = SystemTime::now();
        for identity in [&lab.identity, &orders] {
            let bundles = BundleSet::from(bundle("weft.local", roots));
            identity.replace_bundles(bundles, now).unwrap();
        }
    };
    trust(&[&lab.root, &next]);
    calls_until(&orders, &envoy, &lab.serial()).await;
    let svid = next.svid(INVOICES, in_an_hour());
    lab.identity.replace_svid(svid, SystemTime::now()).unwrap();
    calls_until(&orders, &envoy, &lab.serial()).await;
    let svid = next.svid(ORDERS, in_an_hour());
    orders.replace_svid(svid, SystemTime::now()).unwrap();
    within(async {
        // Envoy takes the two roots a moment after it was told.
        while call(&orders, envoy.inbound).await.is_err() {}
    })
    .await;
    trust(&[&next]);
    calls_until(&orders, &envoy, &lab.serial()).await;
    // Whoever still has a certificate under the old root is out, once Envoy has let go of it.
    let late = node(&lab.issuing, ORDERS, &[&lab.root, &next]);
    within(async { while call(&late, envoy.inbound).await.is_ok() {} }).await;
    calls_until(&orders, &envoy, &lab.serial()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_calls_weft_with_certificates_from_the_socket_through_every_rotation() {
    let Some(program) = program() else { return };
    let lab = Lab::new().await;
    let server = Server::start(node(&lab.issuing, ORDERS, &[&lab.root])).await;
    // By the names of the identities, as an operator may write them too.
    let envoy = start(
        program,
        &lab,
        server.port,
        (INVOICES, "spiffe://weft.local"),
    )
    .await;
    let entry = format!("127.0.0.1:{}", envoy.outbound);
    for _ in 0..4 {
        let expected = Some((INVOICES.to_owned(), lab.serial()));
        within(async {
            loop {
                let answer = http::plain(&entry, "/").await.unwrap();
                assert_eq!(answer, (200, "from weft".to_owned()), "{}", envoy.log());
                if *server.last.lock().unwrap() == expected {
                    return;
                }
            }
        })
        .await;
        lab.rotate();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn envoy_and_weft_refuse_each_others_strangers() {
    let Some(program) = program() else { return };
    let lab = Lab::new().await;
    let stranger = Ca::root("weft.local");
    // It claims to be orders, under a root of its own, and trusts whom it should.
    let server = Server::start(node(&stranger, ORDERS, &[&stranger, &lab.root])).await;
    let envoy = start(program, &lab, server.port, ("default", "ROOTCA")).await;
    let orders = node(&lab.issuing, ORDERS, &[&lab.root]);
    calls_until(&orders, &envoy, &lab.serial()).await;
    let strange = node(&stranger, ORDERS, &[&stranger, &lab.root]);
    assert!(
        within(call(&strange, envoy.inbound)).await.is_err(),
        "Envoy let somebody in whose root it does not know"
    );
    let payments = "spiffe://weft.local/ns/default/sa/payments";
    let other = node(&lab.issuing, payments, &[&lab.root]);
    assert!(
        within(call(&other, envoy.inbound)).await.is_err(),
        "Envoy let in who is not orders"
    );
    let (status, _) = within(http::plain(&format!("127.0.0.1:{}", envoy.outbound), "/"))
        .await
        .unwrap();
    assert_eq!(
        status, 503,
        "Envoy called a server whose root it does not know"
    );
    assert_eq!(*server.last.lock().unwrap(), None);
}
