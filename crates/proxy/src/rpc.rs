//! The short requests to a control node: JSON there and back (docs/wire.md).

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, Request, Uri, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use weft_transport::Connection;
use weft_transport::RecvStream;
use weft_wire::{CONTROL_AUTHORITY, MAX_BODY, Problem};

/// Signing takes a millisecond; a control node that needs longer than this is in trouble.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why a request to a control node gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// It did not get through.
    #[error("{0}")]
    Broken(String),
    /// It was refused.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// The answer makes no sense.
    #[error("the answer cannot be read: {0}")]
    Malformed(String),
}

/// The head of a request to a control node.
pub(crate) fn head(path: &'static str) -> Request<()> {
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

/// Sends `body` and reads the answer.
pub(crate) async fn call<A: DeserializeOwned>(
    connection: &Connection,
    path: &'static str,
    body: &impl Serialize,
) -> Result<A, CallError> {
    let body = serde_json::to_vec(body).map_err(|error| CallError::Malformed(error.to_string()))?;
    let exchange = async {
        let exchange = connection
            .request_with(&head(path), Bytes::from(body), true)
            .await
            .map_err(|error| CallError::Broken(error.to_string()))?;
        answer(exchange.recv).await
    };
    timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| Err(CallError::Broken(format!("no answer within {PATIENCE:?}"))))
}

async fn answer<A: DeserializeOwned>(mut recv: RecvStream) -> Result<A, CallError> {
    let response = recv
        .response()
        .await
        .map_err(|error| CallError::Broken(error.to_string()))?;
    let body = read(&mut recv).await?;
    if !response.status().is_success() {
        return Err(CallError::Refused(problem(
            &body,
            response.status().as_u16(),
        )));
    }
    serde_json::from_slice(&body).map_err(|error| CallError::Malformed(error.to_string()))
}

/// Reads a body of at most [`MAX_BODY`] bytes.
async fn read(recv: &mut RecvStream) -> Result<Bytes, CallError> {
    let mut body = BytesMut::new();
    loop {
        let piece = recv.data().await;
        match piece.map_err(|error| CallError::Broken(error.to_string()))? {
            None => return Ok(body.freeze()),
            Some(piece) if body.len() + piece.len() > MAX_BODY => {
                let reason = format!("it has more than {MAX_BODY} bytes");
                return Err(CallError::Malformed(reason));
            }
            Some(piece) => body.extend_from_slice(&piece),
        }
    }
}

fn problem(body: &[u8], status: u16) -> Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| Problem {
        code: "unknown".to_owned(),
        message: format!("it answered with status {status} and no reason"),
        retry_after_s: None,
    })
}

/// The reason in an answer that is not a success.
pub(crate) async fn refusal(status: u16, recv: &mut RecvStream) -> String {
    match timeout(PATIENCE, read(recv)).await {
        Ok(Ok(body)) => problem(&body, status).message,
        _ => format!("it answered with status {status}"),
    }
}
