//! The HTTP/2 pair: request by request over one TLS connection, with hyper on both sides. It routes nothing,
//! checks no policy and counts nothing: what an L7 mesh over TCP needs at least.

use std::cell::RefCell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use http::{HeaderName, Request, Response, StatusCode, Uri, header};
use http_body_util::{Either, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::pki_types::ServerName;
use tokio::task::spawn_local;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Hop, Place, connect, listen, serve};
use crate::error::{Error, Result};
use crate::tls;

/// Windows as Envoy has them by default, so that neither is bound by them: 16 MiB a stream, 24 MiB in all.
const STREAM_WINDOW: u32 = 16 << 20;
const CONNECTION_WINDOW: u32 = 24 << 20;
/// Streams at a time.
const STREAMS: u32 = 4096;

type Reply = Response<Either<Incoming, Empty<Bytes>>>;

#[derive(Clone, Copy)]
struct LocalExec;

impl<F> hyper::rt::Executor<F> for LocalExec
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}

fn failed() -> Reply {
    let mut reply = Response::new(Either::Right(Empty::new()));
    *reply.status_mut() = StatusCode::BAD_GATEWAY;
    reply
}

/// Fields that mean one connection only.
fn strip(headers: &mut http::HeaderMap) {
    for name in [
        header::CONNECTION,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ] {
        headers.remove(name);
    }
}

/// The one HTTP/2 connection of the calling side.
struct Uplink {
    hop: Hop,
    connector: TlsConnector,
    sender: RefCell<Option<http2::SendRequest<Incoming>>>,
    dialing: tokio::sync::Mutex<()>,
}

impl Uplink {
    fn ready(&self) -> Option<http2::SendRequest<Incoming>> {
        self.sender
            .borrow()
            .clone()
            .filter(|sender| !sender.is_closed())
    }

    async fn sender(&self) -> Option<http2::SendRequest<Incoming>> {
        if let Some(sender) = self.ready() {
            return Some(sender);
        }
        let _one = self.dialing.lock().await;
        if let Some(sender) = self.ready() {
            return Some(sender);
        }
        let name = ServerName::try_from(tls::NAME).ok()?;
        let tcp = connect(self.hop.to).await.ok()?;
        let stream = self.connector.connect(name, tcp).await.ok()?;
        let (sender, connection) = http2::Builder::new(LocalExec)
            .timer(TokioTimer::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(stream))
            .await
            .ok()?;
        spawn_local(connection);
        *self.sender.borrow_mut() = Some(sender.clone());
        Some(sender)
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Option<Reply> {
        strip(request.headers_mut());
        let host = request.headers_mut().remove(header::HOST)?;
        let uri = Uri::builder()
            .scheme("https")
            .authority(host.as_bytes())
            .path_and_query(request.uri().path_and_query()?.clone())
            .build();
        *request.uri_mut() = uri.ok()?;
        *request.version_mut() = http::Version::HTTP_2;
        let reply = self.sender().await?.send_request(request).await.ok()?;
        Some(reply.map(Either::Left))
    }
}

/// HTTP/1.1 in, HTTP/2 out.
pub(super) async fn run_out(place: Place, hop: Hop) -> Result<()> {
    let connector = TlsConnector::from(tls::client(&hop.certs, Some("h2"))?);
    let uplink = Rc::new(Uplink {
        hop,
        connector,
        sender: RefCell::new(None),
        dialing: tokio::sync::Mutex::new(()),
    });
    serve(listen(&place).await?, move |stream| {
        let uplink = uplink.clone();
        let service = service_fn(move |request| {
            let uplink = uplink.clone();
            async move {
                let reply = uplink.forward(request).await;
                Ok::<_, Infallible>(reply.unwrap_or_else(failed))
            }
        });
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service)
    })
    .await
}

/// Kept-alive connections to the application.
struct Backend {
    to: SocketAddr,
    idle: RefCell<Vec<http1::SendRequest<Incoming>>>,
}

impl Backend {
    async fn forward(self: Rc<Self>, mut request: Request<Incoming>) -> Option<Reply> {
        let path = request.uri().path_and_query()?.clone();
        let host = request.uri().authority()?.as_str().parse().ok()?;
        request.headers_mut().insert(header::HOST, host);
        *request.uri_mut() = Uri::from(path);
        *request.version_mut() = http::Version::HTTP_11;
        let mut sender = self.sender().await?;
        let mut reply = sender.send_request(request).await.ok()?;
        strip(reply.headers_mut());
        // Usable again once the body has been read; hyper says when.
        spawn_local(async move {
            if sender.ready().await.is_ok() {
                self.idle.borrow_mut().push(sender);
            }
        });
        Some(reply.map(Either::Left))
    }

    async fn sender(&self) -> Option<http1::SendRequest<Incoming>> {
        loop {
            let Some(sender) = self.idle.borrow_mut().pop() else {
                break;
            };
            if sender.is_ready() {
                return Some(sender);
            }
        }
        let stream = connect(self.to).await.ok()?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        spawn_local(connection);
        Some(sender)
    }
}

/// HTTP/2 in, HTTP/1.1 out.
pub(super) async fn run_in(place: Place, hop: Hop) -> Result<()> {
    let acceptor = TlsAcceptor::from(tls::server(&hop.certs, Some("h2"))?);
    let backend = Rc::new(Backend {
        to: hop.to,
        idle: RefCell::new(Vec::new()),
    });
    serve(listen(&place).await?, move |tcp| {
        let (acceptor, backend) = (acceptor.clone(), backend.clone());
        async move {
            let stream = acceptor.accept(tcp).await.map_err(Error::io("TLS"))?;
            let service = service_fn(move |request| {
                let backend = backend.clone();
                async move {
                    let reply = backend.forward(request).await;
                    Ok::<_, Infallible>(reply.unwrap_or_else(failed))
                }
            });
            hyper::server::conn::http2::Builder::new(LocalExec)
                .timer(TokioTimer::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(STREAMS)
                .serve_connection(TokioIo::new(stream), service)
                .await
                .map_err(Error::because("HTTP/2"))
        }
    })
    .await
}
