//! Asking a control node, from a delegate: JSON there, JSON or a frame back (docs/wire.md).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Uri, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use weft_certs::SpiffeId;
use weft_env::Env;
use weft_transport::{Connection, Pool, RecvStream, Target};
use weft_wire::{CONTROL_AUTHORITY, MAX_BODY, Problem};

/// A whole snapshot may be large, and the way to the control node slow.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why there was no answer, or which. The refusal is kept apart: it says what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("{0}")]
    Broken(String),
    #[error("{}", .0.message)]
    Refused(Problem),
}

fn head(path: &'static str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::builder()
        .scheme("https")
        .authority(CONTROL_AUTHORITY)
        .path_and_query(path)
        .build()
        .expect("a constant authority and path make a URI");
    let json = HeaderValue::from_static("application/json");
    request.headers_mut().insert(header::CONTENT_TYPE, json);
    request
}

/// The answer, of at most `most` bytes.
pub(super) async fn ask_bytes(
    connection: &Connection,
    path: &'static str,
    body: &impl Serialize,
    most: usize,
) -> Result<Bytes, AskError> {
    let broken = |error: &dyn std::fmt::Display| AskError::Broken(error.to_string());
    let body = serde_json::to_vec(body).map_err(|error| broken(&error))?;
    let exchange = async {
        let exchange = connection
            .request_with(&head(path), Bytes::from(body), true)
            .await
            .map_err(|error| broken(&error))?;
        let mut recv = exchange.recv;
        let response = recv.response().await.map_err(|error| broken(&error))?;
        let body = read(&mut recv, most).await?;
        match response.status().is_success() {
            true => Ok(body),
            false => Err(refusal(&body, response.status().as_u16())),
        }
    };
    timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(AskError::Broken(format!("no answer within {PATIENCE:?}"))))
}

fn refusal(body: &[u8], status: u16) -> AskError {
    match serde_json::from_slice(body) {
        Ok(problem) => AskError::Refused(problem),
        Err(_) => AskError::Broken(format!("it answered with status {status} and no reason")),
    }
}

async fn read(recv: &mut RecvStream, most: usize) -> Result<Bytes, AskError> {
    let mut body = BytesMut::new();
    loop {
        let piece = recv.data().await;
        match piece.map_err(|error| AskError::Broken(error.to_string()))? {
            None => return Ok(body.freeze()),
            Some(piece) if body.len() + piece.len() > most => {
                let reason = format!("the answer has more than {most} bytes");
                return Err(AskError::Broken(reason));
            }
            Some(piece) => body.extend_from_slice(&piece),
        }
    }
}

/// The answer as what it should be.
pub(super) async fn ask<A: DeserializeOwned>(
    connection: &Connection,
    path: &'static str,
    body: &impl Serialize,
) -> Result<A, AskError> {
    let answer = ask_bytes(connection, path, body, MAX_BODY).await?;
    serde_json::from_slice(&answer)
        .map_err(|error| AskError::Broken(format!("the answer cannot be read: {error}")))
}

/// A connection to the first control node that answers; the reasons of all if none does.
pub(super) async fn dial(
    env: &Env,
    pool: &Pool,
    addresses: &[String],
    control: &SpiffeId,
) -> Result<Connection, String> {
    let mut tried = Vec::new();
    for address in addresses {
        let found = match resolve(env, address).await {
            Ok(found) => found,
            Err(reason) => {
                tried.push(format!("{address}: {reason}"));
                continue;
            }
        };
        for addr in found {
            match pool
                .connection(&Target::control(addr, control.clone()))
                .await
            {
                Ok(connection) => return Ok(connection),
                Err(error) => tried.push(format!("{address}: {error}")),
            }
        }
    }
    Err(tried.join("; "))
}

/// The addresses behind `host:port`.
pub(super) async fn resolve(env: &Env, address: &str) -> Result<Vec<SocketAddr>, String> {
    let wrong = || "it is not HOST:PORT".to_owned();
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let inner = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    env.resolve(inner.unwrap_or(host), port)
        .await
        .map_err(|error| error.to_string())
}
