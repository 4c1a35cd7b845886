//! The own bundle, for other meshes to fetch (SPIFFE Federation §5): HTTPS over TCP, nothing but `GET /`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use weft_certs::tls;
use weft_env::{Env, Listener, Stream, Tasks};

use crate::accept;
use crate::error::ControlError;
use crate::node::Node;

/// Fetchers at once.
const MAX_CONNECTIONS: usize = 64;
/// Longest life of a connection, its handshake included.
const LIFE: Duration = Duration::from_secs(10);
/// Larger than any chain or key.
const MAX_PEM: usize = 1024 * 1024;
const ALPN: &[&[u8]] = &[b"http/1.1"];

/// Where and how the own bundle is served.
#[derive(Debug, Clone)]
pub struct BundleEndpoint {
    /// TCP address; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// `https_web`: what to present. `None`: `https_spiffe`, with the control node's SVID.
    pub web: Option<WebCertificate>,
    /// How often others should fetch (`spiffe_refresh_hint`), whole seconds.
    pub refresh_hint: Duration,
}

/// A certificate of the Web PKI. Its files are read for each connection, so that a renewed one needs no restart.
#[derive(Debug, Clone)]
pub struct WebCertificate {
    /// PEM of the chain, leaf first.
    pub chain: PathBuf,
    /// PEM of the key.
    pub key: PathBuf,
}

/// An endpoint whose port is open.
pub(crate) struct Serving {
    listener: Listener,
    how: BundleEndpoint,
    pub(crate) addr: SocketAddr,
}

/// Opens the port, and finds out whether there is something to present.
pub(crate) async fn listen(env: &Env, how: BundleEndpoint) -> Result<Serving, ControlError> {
    let failed = |reason: String| ControlError::Listen {
        what: "the bundle endpoint's address",
        addr: how.listen,
        reason,
    };
    if let Some(web) = &how.web {
        let read = web_config(env, web).await;
        read.map_err(|reason| ControlError::BundleCertificate { reason })?;
    }
    let listener = env.listen(how.listen).await;
    let listener = listener.map_err(|error| failed(error.to_string()))?;
    let addr = listener.local_addr();
    Ok(Serving {
        addr: addr.map_err(|error| failed(error.to_string()))?,
        listener,
        how,
    })
}

/// Serves it until the owner of `tasks` stops.
pub(crate) async fn serve(node: Arc<Node>, serving: Serving, tasks: Tasks) {
    let stop = tasks.token();
    let Serving { listener, how, .. } = serving;
    let own = tls::spiffe_endpoint_server(node.own.source.clone(), ALPN, node.env.clock());
    let (how, own) = (Arc::new(how), Arc::new(own));
    let at_once = ("the bundle endpoint", MAX_CONNECTIONS);
    accept::each(listener, at_once, tasks, |stream| {
        let (node, how, own, stop) = (node.clone(), how.clone(), own.clone(), stop.clone());
        Some(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                _ = timeout(LIFE, connection(&node, &how, own, stream)) => {}
            }
        })
    })
    .await;
}

async fn connection(
    node: &Arc<Node>,
    how: &BundleEndpoint,
    own: Arc<ServerConfig>,
    stream: Stream,
) {
    let config = match &how.web {
        None => own,
        Some(web) => match web_config(&node.env, web).await {
            Ok(config) => Arc::new(config),
            Err(reason) => {
                tracing::warn!(reason, "the bundle endpoint cannot answer");
                return;
            }
        },
    };
    let stream = match TlsAcceptor::from(config).accept(stream).await {
        Ok(stream) => stream,
        Err(error) => {
            tracing::debug!(%error, "a handshake with the bundle endpoint failed");
            return;
        }
    };
    let service = service_fn(|request| {
        let reply = answer(node, how, &request);
        async move { Ok::<_, Infallible>(reply) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = serving.await {
        tracing::debug!(%error, "a connection to the bundle endpoint ended");
    }
}

async fn web_config(env: &Env, web: &WebCertificate) -> Result<ServerConfig, String> {
    let (chain, key) = (web.chain.clone(), web.key.clone());
    let read = env.disk(move |disk| {
        let chain = disk.read(&chain, MAX_PEM)?;
        Ok((chain, zeroize::Zeroizing::new(disk.read(&key, MAX_PEM)?)))
    });
    let read: Result<_, weft_env::DiskError> = read.await;
    let (chain, key) = read.map_err(|error| error.to_string())?;
    tls::web_endpoint_server(&chain, &key, ALPN, env.clock()).map_err(|error| error.to_string())
}

fn answer(node: &Node, how: &BundleEndpoint, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    if request.uri().path() != "/" {
        return reply(StatusCode::NOT_FOUND, "text/plain", "the bundle is at /\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = reply(
            StatusCode::METHOD_NOT_ALLOWED,
            "text/plain",
            "GET or HEAD\n",
        );
        let allowed = HeaderValue::from_static("GET, HEAD");
        refused.headers_mut().insert(header::ALLOW, allowed);
        return refused;
    }
    let mut jwks = node.ca.authority().bundle().to_jwks();
    jwks["spiffe_refresh_hint"] = how.refresh_hint.as_secs().into();
    reply(StatusCode::OK, "application/json", jwks.to_string())
}

fn reply(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut reply = Response::new(Full::new(body.into()));
    *reply.status_mut() = status;
    let kind = HeaderValue::from_static(kind);
    reply.headers_mut().insert(header::CONTENT_TYPE, kind);
    reply
}
