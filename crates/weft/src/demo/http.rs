//! The application's side of HTTP in the demo: plain HTTP/1.1 to the sidecar's local listener.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::time::Instant;
use weft_env::Env;

/// Longest wait for a whole reply: above every timeout that the demo sets on a route.
const REPLY: Duration = Duration::from_secs(12);

/// A whole reply.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
    pub(super) took: Duration,
}

impl Reply {
    /// A header as text, empty if absent.
    pub(super) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    /// The body as JSON, null if it is none.
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// The body as text.
    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).trim().to_owned()
    }
}

/// One kept-alive connection.
pub(super) struct Connection(SendRequest<Empty<Bytes>>);

impl Connection {
    /// Connects to a local listener.
    pub(super) async fn open(env: &Env, addr: SocketAddr) -> Result<Self, String> {
        let stream = env
            .connect(addr)
            .await
            .map_err(|error| format!("cannot connect to {addr}: {error}"))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| format!("cannot speak HTTP to {addr}: {error}"))?;
        // Ends with the connection, which ends with its sender.
        drop(env.spawn(async move {
            let _ = connection.await;
        }));
        Ok(Self(sender))
    }

    /// Sends `GET path` to `host` and reads the whole reply.
    pub(super) async fn get(&mut self, host: &str, path: &str) -> Result<Reply, String> {
        let request = Request::get(path)
            .header(http::header::HOST, host)
            .body(Empty::new())
            .map_err(|error| format!("cannot ask for {path}: {error}"))?;
        let started = Instant::now();
        let exchange = async {
            let reply = self.0.send_request(request).await?;
            let (head, body) = reply.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok::<_, hyper::Error>((head, body))
        };
        let (head, body) = tokio::time::timeout(REPLY, exchange)
            .await
            .map_err(|_| format!("no reply to {path} within {REPLY:?}"))?
            .map_err(|error| format!("no reply to {path}: {}", crate::failure::chain(&error)))?;
        Ok(Reply {
            status: head.status,
            headers: head.headers,
            body,
            took: started.elapsed(),
        })
    }

    /// Whether another request can be sent.
    pub(super) fn is_usable(&self) -> bool {
        !self.0.is_closed()
    }

    /// Waits until another request can be sent. False if the connection has ended.
    pub(super) async fn ready(&mut self) -> bool {
        self.0.ready().await.is_ok()
    }
}

/// One request on a connection of its own.
pub(super) async fn get(
    env: &Env,
    addr: SocketAddr,
    host: &str,
    path: &str,
) -> Result<Reply, String> {
    Connection::open(env, addr).await?.get(host, path).await
}
