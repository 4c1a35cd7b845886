//! Loopback QUIC connections, and a peer that writes HTTP/3 by hand.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use quinn::VarInt;
use weft_h3::{Accept, Code, Config, Error, RecvStream, Requests, SendStream};

/// A pair of connected QUIC endpoints. The endpoints live as long as the pair.
pub(crate) struct Pair {
    pub(crate) client: quinn::Connection,
    pub(crate) server: quinn::Connection,
    #[allow(dead_code, reason = "not every test binary connects them again")]
    pub(crate) endpoints: [quinn::Endpoint; 2],
}

/// Fails the test when `future` takes longer than any of these should.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("the peer did not answer within 20 s")
}

/// A key and a certificate that is its own authority.
pub(crate) struct Identity {
    pub(crate) cert: rcgen::Certificate,
    pub(crate) key: rcgen::KeyPair,
}

impl Identity {
    pub(crate) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let (cert, key) = (made.cert, made.signing_key);
        Self { cert, key }
    }

    fn private(&self) -> rustls::pki_types::PrivateKeyDer<'static> {
        rustls::pki_types::PrivateKeyDer::Pkcs8(self.key.serialize_der().into())
    }

    fn roots(&self) -> rustls::RootCertStore {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.cert.der().clone()).unwrap();
        roots
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A server; `client`, if any, is whom it asks for a certificate.
pub(crate) fn server_config(own: &Identity, client: Option<&Identity>) -> quinn::ServerConfig {
    let builder = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap();
    let builder = match client {
        None => builder.with_no_client_auth(),
        Some(client) => builder.with_client_cert_verifier(
            rustls::server::WebPkiClientVerifier::builder_with_provider(
                client.roots().into(),
                provider(),
            )
            .build()
            .unwrap(),
        ),
    };
    let mut tls = builder
        .with_single_cert(vec![own.cert.der().clone()], own.private())
        .unwrap();
    tls.alpn_protocols = vec![b"h3".to_vec()];
    quinn::ServerConfig::with_crypto(Arc::new(
        quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap(),
    ))
}

/// A client that trusts `server` and perhaps has a certificate of its own.
pub(crate) fn client_config(own: Option<&Identity>, server: &Identity) -> quinn::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(server.roots());
    let mut tls = match own {
        None => builder.with_no_client_auth(),
        Some(own) => builder
            .with_client_auth_cert(vec![own.cert.der().clone()], own.private())
            .unwrap(),
    };
    tls.alpn_protocols = vec![b"h3".to_vec()];
    quinn::ClientConfig::new(Arc::new(
        quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap(),
    ))
}

/// Any port of this machine.
pub(crate) fn any() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}

pub(crate) fn endpoints(
    transport: quinn::TransportConfig,
) -> (quinn::Endpoint, quinn::Endpoint, SocketAddr) {
    let own = Identity::new();
    let transport = Arc::new(transport);
    let mut server_config = server_config(&own, None);
    server_config.transport_config(transport.clone());
    let mut client_config = client_config(None, &own);
    client_config.transport_config(transport);

    let server = quinn::Endpoint::server(server_config, any()).unwrap();
    let mut client = quinn::Endpoint::client(any()).unwrap();
    client.set_default_client_config(client_config);
    let addr = server.local_addr().unwrap();
    (client, server, addr)
}

pub(crate) async fn pair() -> Pair {
    pair_with(quinn::TransportConfig::default()).await
}

pub(crate) async fn pair_with(transport: quinn::TransportConfig) -> Pair {
    let (client, server, _) = endpoints(transport);
    connected([client, server]).await
}

/// Connects two endpoints, perhaps once more.
pub(crate) async fn connected(endpoints: [quinn::Endpoint; 2]) -> Pair {
    let [client, server] = &endpoints;
    let addr = server.local_addr().unwrap();
    let accept = async { server.accept().await.unwrap().await.unwrap() };
    let connect = async { client.connect(addr, "localhost").unwrap().await.unwrap() };
    let (server, client) = within(async { tokio::join!(accept, connect) }).await;
    Pair {
        client,
        server,
        endpoints,
    }
}

/// Our server on `conn`, each request in a task with `handler`.
pub(crate) fn serve<F, H>(conn: quinn::Connection, config: Config, handler: H) -> weft_h3::Shutdown
where
    H: Fn(Request<()>, SendStream, RecvStream) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let (accept, driver) = weft_h3::server(conn, config);
    let shutdown = accept.shutdown();
    tokio::spawn(driver.run());
    tokio::spawn(accept_all(accept, handler));
    shutdown
}

async fn accept_all<F, H>(mut accept: Accept, handler: H)
where
    H: Fn(Request<()>, SendStream, RecvStream) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    while let Ok(Some(pending)) = accept.accept().await {
        let handler = handler.clone();
        tokio::spawn(async move {
            if let Ok((request, send, recv)) = pending.head().await {
                handler(request, send, recv).await;
            }
        });
    }
}

/// Answers with the request's method and path in fields, its content, and its trailers.
pub(crate) async fn echo(request: Request<()>, mut send: SendStream, mut recv: RecvStream) {
    let result: Result<(), Error> = async {
        let response = Response::builder()
            .header("x-method", request.method().as_str())
            .header("x-path", request.uri().path())
            .body(())
            .unwrap();
        send.send_response(&response).await?;
        while let Some(piece) = recv.data().await? {
            send.send_data(piece).await?;
        }
        if let Some(trailers) = recv.trailers().await? {
            send.send_trailers(&trailers).await?;
        }
        send.finish().await
    }
    .await;
    // The client may be gone: that is its business.
    drop(result);
}

/// Our client on `conn`.
pub(crate) fn requests(conn: quinn::Connection) -> Requests {
    requests_with(conn, Config::default())
}

pub(crate) fn requests_with(conn: quinn::Connection, config: Config) -> Requests {
    let (requests, driver) = weft_h3::client(conn, config);
    tokio::spawn(driver.run());
    requests
}

/// Everything switched on.
pub(crate) fn all_on() -> Config {
    Config {
        extended_connect: true,
        datagram_buffer: 64 * 1024,
        ..Config::default()
    }
}

pub(crate) fn get(path: &str) -> Request<()> {
    request(Method::GET, path)
}

pub(crate) fn request(method: Method, path: &str) -> Request<()> {
    let uri = format!("https://invoices.default:80{path}");
    Request::builder().method(method).uri(uri).body(()).unwrap()
}

pub(crate) fn connect() -> Request<()> {
    let uri = "invoices.default:5432";
    Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .body(())
        .unwrap()
}

/// Sends a GET and reads its response to the end: what neighbours of a fault are asked to survive.
pub(crate) async fn get_ok(requests: &Requests, path: &str) {
    let (_send, mut recv) = within(requests.send(&get(path), true)).await.unwrap();
    let response = within(recv.response()).await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["x-path"], path);
    assert_eq!(within(recv.data()).await.unwrap(), None);
}

pub(crate) async fn read_all(recv: &mut RecvStream) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    while let Some(piece) = recv.data().await? {
        out.extend_from_slice(&piece);
    }
    Ok(out)
}

/// Polls once.
pub(crate) async fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    std::future::poll_fn(|cx| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut future).poll(cx) {
            std::task::Poll::Ready(out) => Some(out),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

// ---- by hand ----

pub(crate) const DATA: u64 = 0;
pub(crate) const HEADERS: u64 = 1;
pub(crate) const SETTINGS: u64 = 4;

pub(crate) fn varint(value: u64) -> Vec<u8> {
    match value {
        0..0x40 => vec![value as u8],
        0x40..0x4000 => (value as u16 | 0x4000).to_be_bytes().to_vec(),
        0x4000..0x4000_0000 => (value as u32 | 0x8000_0000).to_be_bytes().to_vec(),
        _ => (value | 0xc000_0000_0000_0000).to_be_bytes().to_vec(),
    }
}

pub(crate) fn frame(kind: u64, payload: &[u8]) -> Vec<u8> {
    [&varint(kind), &varint(payload.len() as u64), payload].concat()
}

/// A HEADERS frame of plain literals.
pub(crate) fn headers(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = vec![0, 0];
    for (name, value) in fields {
        prefixed(name.len(), 7, 0x20, &mut block);
        block.extend_from_slice(name.as_bytes());
        prefixed(value.len(), 0x7f, 0, &mut block);
        block.extend_from_slice(value.as_bytes());
    }
    frame(HEADERS, &block)
}

fn prefixed(value: usize, mask: usize, flags: u8, out: &mut Vec<u8>) {
    if value < mask {
        return out.push(flags | value as u8);
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 128 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub(crate) const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "invoices.default:80"),
    (":path", "/raw"),
];

/// A SETTINGS frame of these pairs.
pub(crate) fn settings(pairs: &[(u64, u64)]) -> Vec<u8> {
    let payload = pairs
        .iter()
        .flat_map(|(id, v)| [varint(*id), varint(*v)].concat());
    frame(SETTINGS, &payload.collect::<Vec<_>>())
}

/// SETTINGS that offer extended CONNECT and HTTP datagrams.
pub(crate) fn offers_all() -> Vec<u8> {
    settings(&[(8, 1), (0x33, 1)])
}

/// `GET`'s fields without those of `but`'s names, then `but`.
pub(crate) fn get_but<'a>(but: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = GET.iter().filter(|f| but.iter().all(|b| b.0 != f.0));
    kept.chain(but).copied().collect()
}

/// A peer that speaks HTTP/3 by hand. Its control stream is kept open.
pub(crate) struct Raw {
    pub(crate) conn: quinn::Connection,
    pub(crate) control: quinn::SendStream,
}

impl Raw {
    /// With an empty SETTINGS on a control stream.
    pub(crate) async fn new(conn: quinn::Connection) -> Self {
        Self::with_control(conn, &frame(SETTINGS, &[])).await
    }

    /// With these bytes on a control stream.
    pub(crate) async fn with_control(conn: quinn::Connection, bytes: &[u8]) -> Self {
        let mut control = conn.open_uni().await.unwrap();
        control.write_all(&[0]).await.unwrap();
        control.write_all(bytes).await.unwrap();
        Self { conn, control }
    }

    /// Opens a unidirectional stream with these bytes.
    pub(crate) async fn uni(&self, bytes: &[u8]) -> quinn::SendStream {
        let mut stream = self.conn.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Opens a request stream with these bytes.
    pub(crate) async fn open(&self, bytes: &[u8]) -> (quinn::SendStream, quinn::RecvStream) {
        let (mut send, recv) = self.conn.open_bi().await.unwrap();
        // The peer may refuse the stream before it has read all.
        let _ = send.write_all(bytes).await;
        (send, recv)
    }

    /// Sends a whole request and reads all that comes back.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> Result<Vec<u8>, quinn::ReadToEndError> {
        let (mut send, mut recv) = self.open(bytes).await;
        let _ = send.finish();
        within(recv.read_to_end(1 << 20)).await
    }

    /// Sends a good request and checks that it is answered: the connection is alive.
    pub(crate) async fn is_alive(&self) {
        let answer = self
            .exchange(&headers(&GET))
            .await
            .expect("a neighbour's answer");
        assert_eq!(answer.first(), Some(&(HEADERS as u8)));
    }

    /// The code with which the peer closed the connection.
    pub(crate) async fn closed_with(&self) -> Code {
        match within(self.conn.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => Code::from(close.error_code),
            other => panic!("closed with {other}"),
        }
    }
}

/// The code of a stream that the peer reset.
pub(crate) fn reset_code<T: std::fmt::Debug>(result: Result<T, quinn::ReadToEndError>) -> Code {
    match result {
        Err(quinn::ReadToEndError::Read(quinn::ReadError::Reset(code))) => Code::from(code),
        other => panic!("expected a reset, got {other:?}"),
    }
}

pub(crate) fn bytes(len: usize) -> Bytes {
    (0..len).map(|i| (i % 251) as u8).collect::<Vec<_>>().into()
}

/// A transport whose windows fill quickly.
pub(crate) fn narrow() -> quinn::TransportConfig {
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(VarInt::from_u32(16 * 1024))
        .send_window(32 * 1024);
    transport
}
