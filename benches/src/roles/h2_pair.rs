//! The HTTP/2 pair: hyper on both sides, one TLS connection between them, requests as streams on it. It
//! decides nothing, counts nothing and checks no more than the certificate: the least that a proxy of
//! requests does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::uri::{Parts, Scheme};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body_util::{BodyExt, Empty, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::server::conn::{http1 as server_http1, http2 as server_http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Side, SideArgs, net};
use crate::certs::{Certs, SERVER_NAME};
use crate::error::{Error, Result};

type Body = BoxBody<Bytes, hyper::Error>;
type Answer = std::result::Result<Response<Body>, hyper::Error>;

/// Windows as in weft's profile for a data centre, so that both fill the same link.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Requests at a time.
const STREAMS: u32 = 10_000;

pub(super) async fn run(args: SideArgs) -> Result<()> {
    match args.side {
        Side::A => side_a(args).await,
        Side::B => side_b(args).await,
    }
}

async fn side_a(args: SideArgs) -> Result<()> {
    let config = Certs::in_dir(&args.certs).client_config("a", &[b"h2"])?;
    let tunnel = Arc::new(Tunnel {
        upstream: args.upstream,
        connector: TlsConnector::from(config),
        sender: tokio::sync::Mutex::default(),
    });
    net::serve(args.listen, &args.ready_file, move |stream| {
        let tunnel = Arc::clone(&tunnel);
        async move {
            let service = service_fn(move |request| {
                let tunnel = Arc::clone(&tunnel);
                async move { tunnel.forward(request).await }
            });
            let io = TokioIo::new(stream);
            let _ = server_http1::Builder::new()
                .serve_connection(io, service)
                .await;
        }
    })
    .await
}

/// The one connection to the other side.
struct Tunnel {
    upstream: SocketAddr,
    connector: TlsConnector,
    sender: tokio::sync::Mutex<Option<http2::SendRequest<Incoming>>>,
}

impl Tunnel {
    async fn sender(&self) -> Result<http2::SendRequest<Incoming>> {
        let mut slot = self.sender.lock().await;
        if let Some(sender) = slot.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let what = || format!("connect to {}", self.upstream);
        let tcp = net::connect(self.upstream)
            .await
            .map_err(Error::io(what()))?;
        let name = ServerName::try_from(SERVER_NAME).map_err(|e| Error::Tls(e.to_string()))?;
        let tls = self
            .connector
            .connect(name, tcp)
            .await
            .map_err(Error::io(what()))?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(tls))
            .await
            .map_err(|error| Error::Protocol(error.to_string()))?;
        tokio::spawn(connection);
        Ok(slot.insert(sender).clone())
    }

    async fn forward(&self, mut request: Request<Incoming>) -> Answer {
        let Ok(mut sender) = self.sender().await else {
            return Ok(refused(StatusCode::BAD_GATEWAY));
        };
        let host = request.headers_mut().remove(HOST);
        request.headers_mut().remove(CONNECTION);
        let mut parts = Parts::from(std::mem::take(request.uri_mut()));
        parts.scheme = Some(Scheme::HTTP);
        parts.authority = host.and_then(|host| host.to_str().ok()?.parse().ok());
        let Ok(uri) = Uri::from_parts(parts) else {
            return Ok(refused(StatusCode::BAD_REQUEST));
        };
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        let mut response = sender.send_request(request).await?;
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(BodyExt::boxed))
    }
}

async fn side_b(args: SideArgs) -> Result<()> {
    let config = Certs::in_dir(&args.certs).server_config("b", &[b"h2"])?;
    let acceptor = TlsAcceptor::from(config);
    let app = Arc::new(App {
        upstream: args.upstream,
        idle: Mutex::default(),
    });
    net::serve(args.listen, &args.ready_file, move |tcp| {
        let (acceptor, app) = (acceptor.clone(), Arc::clone(&app));
        async move {
            let Ok(tls) = acceptor.accept(tcp).await else {
                return;
            };
            let service = service_fn(move |request| {
                let app = Arc::clone(&app);
                async move { app.forward(request).await }
            });
            let _ = server_http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .max_concurrent_streams(STREAMS)
                .serve_connection(TokioIo::new(tls), service)
                .await;
        }
    })
    .await
}

/// Kept-alive connections to the server.
struct App {
    upstream: SocketAddr,
    idle: Mutex<Vec<http1::SendRequest<Incoming>>>,
}

impl App {
    /// One that was used before and is open.
    fn reuse(&self) -> Option<http1::SendRequest<Incoming>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(sender) = idle.pop() {
            if sender.is_ready() {
                return Some(sender);
            }
        }
        None
    }

    async fn connection(&self) -> Result<http1::SendRequest<Incoming>> {
        if let Some(sender) = self.reuse() {
            return Ok(sender);
        }
        let what = format!("connect to {}", self.upstream);
        let tcp = net::connect(self.upstream).await.map_err(Error::io(what))?;
        let (sender, connection) = http1::handshake(TokioIo::new(tcp))
            .await
            .map_err(|error| Error::Protocol(error.to_string()))?;
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn forward(self: Arc<Self>, mut request: Request<Incoming>) -> Answer {
        let Ok(mut sender) = self.connection().await else {
            return Ok(refused(StatusCode::BAD_GATEWAY));
        };
        let mut parts = Parts::from(std::mem::take(request.uri_mut()));
        parts.scheme = None;
        if let Some(host) = parts.authority.take()
            && let Ok(value) = host.as_str().parse()
        {
            request.headers_mut().insert(HOST, value);
        }
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        *request.version_mut() = Version::HTTP_11;
        let response = sender.send_request(request).await?;
        let app = Arc::clone(&self);
        tokio::spawn(async move {
            if sender.ready().await.is_ok() {
                app.idle
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(sender);
            }
        });
        Ok(response.map(BodyExt::boxed))
    }
}

fn refused(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}
