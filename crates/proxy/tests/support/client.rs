//! The own application's side: what calls through a sidecar.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{PATIENCE, Sidecar};

/// A whole response, or how far it came.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    /// The body, or that it broke off.
    pub body: Result<Bytes, String>,
    pub trailers: Option<HeaderMap>,
}

impl Reply {
    pub fn text(&self) -> &str {
        std::str::from_utf8(self.body.as_ref().unwrap()).unwrap()
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(self.text()).unwrap()
    }

    /// A header's lines as text.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let values = self.headers.get_all(name).iter();
        values.map(|value| value.to_str().unwrap()).collect()
    }
}

/// GET by `Host`.
pub async fn get(outbound: SocketAddr, host: &str, path: &str) -> Reply {
    let request = Request::get(path).header("host", host);
    send(outbound, request.body(Full::default()).unwrap()).await
}

/// GETs from `invoices` what breaks off at once: the head must come, and what follows must not look whole.
pub async fn assert_cut(orders: &Sidecar, request_id: &str) {
    let request = Request::get("http://invoices/").header("x-request-id", request_id);
    let reply = send(
        orders.ready.outbound,
        request.body(Full::default()).unwrap(),
    )
    .await;
    assert_eq!(reply.status, 200, "{request_id}: {reply:?}");
    assert_eq!(reply.headers["x-app"], "a", "the application's own head");
    assert!(reply.body.is_err(), "{request_id}: {reply:?}");
}

/// One request on a connection of its own.
pub async fn send(outbound: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    timeout(PATIENCE, exchange(outbound, request))
        .await
        .expect("a response in time")
}

async fn exchange(outbound: SocketAddr, request: Request<Full<Bytes>>) -> Reply {
    let stream = TcpStream::connect(outbound).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let response = sender.send_request(request).await.expect("a response head");
    let (parts, body) = response.into_parts();
    let collected = body.collect().await;
    driver.abort();
    let trailers = collected
        .as_ref()
        .ok()
        .and_then(|body| body.trailers().cloned());
    Reply {
        status: parts.status,
        headers: parts.headers,
        body: collected
            .map(|body| body.to_bytes())
            .map_err(|error| error.to_string()),
        trailers,
    }
}

/// A connection that carries one request after another: the load of the rotation test.
pub struct Caller {
    sender: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    host: String,
}

impl Caller {
    pub async fn connect(outbound: SocketAddr, host: &str) -> Self {
        let stream = TcpStream::connect(outbound).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        Self {
            sender,
            host: host.to_owned(),
        }
    }

    /// The status, or how the request failed.
    pub async fn call(
        &mut self,
        method: Method,
        path: &str,
    ) -> Result<(StatusCode, String), String> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .body(Full::default())
            .unwrap();
        let said = |error: hyper::Error| error.to_string();
        self.sender.ready().await.map_err(said)?;
        let response = self.sender.send_request(request).await.map_err(said)?;
        let status = response.status();
        let body = response
            .into_body()
            .collect()
            .await
            .map_err(said)?
            .to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
