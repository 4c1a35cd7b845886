//! Unary gRPC calls in a closed loop: HTTP/2 in the clear to the pair, as a client library does beside a
//! sidecar, all calls on one connection.

use std::net::SocketAddr;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::outcome::Recorder;
use super::{Job, Outcome, Workload};
use crate::error::{Error, Result};
use crate::usage::Usage;

/// The method that the server answers.
pub(crate) const METHOD: &str = "/bench.Echo/Unary";
/// Bytes before each message: not compressed, and its length.
const PREFIX: usize = 5;

/// A message as it is on the wire.
pub(crate) fn message(payload: &[u8]) -> Bytes {
    let mut message = BytesMut::with_capacity(PREFIX + payload.len());
    message.put_u8(0);
    message.put_u32(u32::try_from(payload.len()).unwrap_or(u32::MAX));
    message.put_slice(payload);
    message.freeze()
}

pub(super) async fn run(job: &Job, calls: u32) -> Result<Outcome> {
    let sender = connect(job.entry).await?;
    let begin = Instant::now() + job.warm_up;
    let end = begin + job.window;
    let mut tasks = JoinSet::new();
    for _ in 0..calls {
        tasks.spawn(one(sender.clone(), job.clone(), begin, end));
    }
    tokio::time::sleep_until(begin).await;
    let (before, started) = (Usage::of(&job.proxies), Instant::now());
    tokio::time::sleep_until(end).await;
    let mut outcome = Outcome {
        proxies: Usage::of(&job.proxies).since(before),
        seconds: started.elapsed().as_secs_f64(),
        size: job.workload.size,
        ..Outcome::default()
    };
    let mut recorder = Recorder::new();
    while let Some(one) = tasks.join_next().await {
        recorder.merge(&one.map_err(|error| Error::Protocol(error.to_string()))??);
    }
    outcome.requests = recorder.len();
    outcome.bytes = outcome.requests * job.workload.size;
    outcome.latency = recorder.latency();
    Ok(outcome)
}

async fn connect(entry: SocketAddr) -> Result<SendRequest<Full<Bytes>>> {
    let what = format!("connect to {entry}");
    let stream = TcpStream::connect(entry).await.map_err(Error::io(what))?;
    stream
        .set_nodelay(true)
        .map_err(Error::io("set TCP_NODELAY"))?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1024 * 1024)
        .initial_connection_window_size(16 * 1024 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(said)?;
    tokio::spawn(connection);
    Ok(sender)
}

/// Calls until the end, one at a time.
async fn one(
    mut sender: SendRequest<Full<Bytes>>,
    job: Job,
    begin: Instant,
    end: Instant,
) -> Result<Recorder> {
    let mut recorder = Recorder::new();
    loop {
        let asked = Instant::now();
        if asked >= end {
            return Ok(recorder);
        }
        call(&mut sender, &job.workload).await?;
        let now = Instant::now();
        if now >= begin && now < end {
            recorder.record(now - asked);
        }
    }
}

/// One call on a connection of its own.
pub(crate) async fn one_call(entry: SocketAddr, workload: &Workload) -> Result<()> {
    let mut sender = connect(entry).await?;
    call(&mut sender, workload).await
}

async fn call(sender: &mut SendRequest<Full<Bytes>>, workload: &Workload) -> Result<()> {
    let payload = message(&vec![b'x'; usize::try_from(workload.size).unwrap_or(0)]);
    let length = payload.len();
    let reply = sender.send_request(request(&workload.host, payload)?);
    let reply = reply.await.map_err(said)?;
    let status = reply.status();
    let body = reply.into_body().collect().await.map_err(said)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    check(status, &trailers, body.to_bytes().len(), length)
}

/// With the fields that gRPC's client libraries and tracing send.
fn request(host: &str, payload: Bytes) -> Result<Request<Full<Bytes>>> {
    Request::builder()
        .method(Method::POST)
        .uri(format!("http://{host}{METHOD}"))
        .header("te", "trailers")
        .header("content-type", "application/grpc+proto")
        .header("user-agent", "grpc-go/1.76.0")
        .header("grpc-accept-encoding", "gzip")
        .header("grpc-timeout", "5S")
        .header(
            "traceparent",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        )
        .body(Full::new(payload))
        .map_err(said)
}

fn check(status: StatusCode, trailers: &HeaderMap, length: usize, expected: usize) -> Result<()> {
    let grpc = trailers.get("grpc-status").map(|value| value.as_bytes());
    if status == StatusCode::OK && grpc == Some(b"0") && length == expected {
        return Ok(());
    }
    Err(Error::Protocol(format!(
        "a call was answered with {status}, grpc-status {grpc:?} and {length} bytes"
    )))
}

fn said(error: impl std::fmt::Display) -> Error {
    Error::Protocol(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_length_before_it() {
        assert_eq!(message(b"abc").as_ref(), [0, 0, 0, 0, 3, b'a', b'b', b'c']);
    }

    #[test]
    fn a_call_without_its_trailer_has_failed() {
        let mut trailers = HeaderMap::new();
        assert!(check(StatusCode::OK, &trailers, 8, 8).is_err());
        trailers.insert("grpc-status", "14".parse().unwrap());
        assert!(check(StatusCode::OK, &trailers, 8, 8).is_err());
        trailers.insert("grpc-status", "0".parse().unwrap());
        assert!(check(StatusCode::OK, &trailers, 8, 8).is_ok());
    }
}
