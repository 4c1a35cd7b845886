//! Sample applications, well-behaved and not.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Ends its task with it.
pub struct Owned(JoinHandle<()>);

impl Drop for Owned {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// An HTTP application.
pub struct HttpApp {
    pub addr: SocketAddr,
    /// Requests that reached it.
    pub hits: Arc<AtomicUsize>,
    /// Requests under way at `/hang`.
    pub hanging: Arc<AtomicUsize>,
    _task: Owned,
}

impl HttpApp {
    pub async fn start(name: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let hits = Arc::new(AtomicUsize::new(0));
        let hanging = Arc::new(AtomicUsize::new(0));
        let shared = (Arc::clone(&hits), Arc::clone(&hanging));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (hits, hanging) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
                let service = service_fn(move |request| {
                    hits.fetch_add(1, Ordering::SeqCst);
                    answer(name, request, Under(Arc::clone(&hanging)))
                });
                tokio::spawn(async move {
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            addr,
            hits,
            hanging,
            _task: Owned(task),
        }
    }
}

/// Counts a request at `/hang` as long as it lives.
struct Under(Arc<AtomicUsize>);

struct Hanging(Arc<AtomicUsize>);

impl Under {
    fn begin(self) -> Hanging {
        self.0.fetch_add(1, Ordering::SeqCst);
        Hanging(self.0)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Frames that are there, then an end or an error.
pub struct Script(Vec<Frame<Bytes>>, Cut);

/// How a script ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    No,
    /// With an error, once what came before is on the wire: hyper writes when there is nothing to read.
    AfterFlush,
    Now,
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if !self.0.is_empty() {
            return Poll::Ready(Some(Ok(self.0.remove(0))));
        }
        match self.1 {
            Cut::No => Poll::Ready(None),
            Cut::AfterFlush => {
                self.1 = Cut::Now;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Cut::Now => Poll::Ready(Some(Err(io::ErrorKind::BrokenPipe.into()))),
        }
    }
}

fn whole(text: String) -> Script {
    Script(vec![Frame::data(Bytes::from(text))], Cut::No)
}

async fn answer(
    name: &'static str,
    request: Request<Incoming>,
    under: Under,
) -> Result<Response<Script>, Infallible> {
    let path = request.uri().path().to_owned();
    if let Some(code) = path.strip_prefix("/status/") {
        let mut response = Response::new(whole(code.to_owned()));
        *response.status_mut() = code.parse().unwrap();
        return Ok(response);
    }
    match path.as_str() {
        "/hang" => {
            let _hanging = under.begin();
            std::future::pending().await
        }
        "/cut" => {
            let part = Frame::data(Bytes::from_static(b"0123456789"));
            let mut response = Response::new(Script(vec![part], Cut::AfterFlush));
            let length = HeaderValue::from_static("100");
            response.headers_mut().insert("content-length", length);
            Ok(response)
        }
        "/cut-chunked" => {
            let part = Frame::data(Bytes::from_static(b"0123456789"));
            Ok(Response::new(Script(vec![part], Cut::AfterFlush)))
        }
        "/trailers" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("x-checksum", HeaderValue::from_static("42"));
            let frames = vec![
                Frame::data(Bytes::from_static(b"data")),
                Frame::trailers(trailers),
            ];
            let mut response = Response::new(Script(frames, Cut::No));
            let names = HeaderValue::from_static("x-checksum");
            response.headers_mut().insert("trailer", names);
            Ok(response)
        }
        "/upload" => {
            let body = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes());
            let sum = body.map_or(0, |body| {
                body.iter().map(|b| u64::from(*b)).sum::<u64>() + body.len() as u64
            });
            Ok(Response::new(whole(sum.to_string())))
        }
        _ => {
            // Closing with some of it unread may cost the caller the answer (RFC 9112 §9.6).
            let (parts, body) = request.into_parts();
            let _ = body.collect().await;
            Ok(echo(name, &Request::from_parts(parts, ())))
        }
    }
}

fn echo(name: &str, request: &Request<()>) -> Response<Script> {
    // Lines of one name are one list (RFC 9110 §5.3).
    let lines = |name| {
        let all: Vec<_> = request.headers().get_all(name).iter().collect();
        let all = all.iter().map(|value| value.to_str().unwrap());
        all.collect::<Vec<_>>().join(", ")
    };
    let headers: serde_json::Map<String, serde_json::Value> = request
        .headers()
        .keys()
        .map(|name| (name.to_string(), lines(name).into()))
        .collect();
    let body = json!({
        "instance": name,
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "headers": headers,
    });
    Response::new(whole(body.to_string()))
}

/// How a connection to a TCP application ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Clean,
    Reset,
}

/// What a TCP application does with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// Reads to the end, sends all of it back, closes.
    EchoAtEnd,
    /// Sends a greeting and closes its side, then reads to the end.
    SpeakFirst,
    /// Resets once a byte has come.
    Reset,
    /// Reads, says nothing.
    Listen,
}

/// A TCP application.
pub struct TcpApp {
    pub addr: SocketAddr,
    /// How connections ended, and what was read of them.
    pub ended: mpsc::Receiver<(Ending, Vec<u8>)>,
    _task: Owned,
}

impl TcpApp {
    pub async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (tell, ended) = mpsc::channel(64);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let tell = tell.clone();
                tokio::spawn(async move {
                    let ending = serve(stream, manner).await;
                    let _ = tell.send(ending).await;
                });
            }
        });
        Self {
            addr,
            ended,
            _task: Owned(task),
        }
    }
}

async fn serve(mut stream: TcpStream, manner: Manner) -> (Ending, Vec<u8>) {
    let mut received = Vec::new();
    if manner == Manner::SpeakFirst {
        stream.write_all(b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
    }
    if manner == Manner::Reset {
        received.push(stream.read_u8().await.unwrap_or_default());
        stream.set_zero_linger().unwrap();
        return (Ending::Reset, received);
    }
    match stream.read_to_end(&mut received).await {
        Ok(_) if manner == Manner::EchoAtEnd => {
            stream.write_all(&received).await.unwrap();
            stream.shutdown().await.unwrap();
            (Ending::Clean, received)
        }
        Ok(_) => (Ending::Clean, received),
        Err(_) => (Ending::Reset, received),
    }
}

/// Answers of a [`RawApp`] that break off at once: by length, chunked, and before the first byte of the content.
pub const CUT_AT_ONCE: [&[u8]; 3] = [
    b"HTTP/1.1 200 OK\r\nx-app: a\r\ncontent-length: 1000\r\n\r\nabc",
    b"HTTP/1.1 200 OK\r\nx-app: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"HTTP/1.1 200 OK\r\nx-app: a\r\ncontent-length: 1000\r\n\r\n",
];

/// An application that reads one request's head on each connection, says these bytes and closes.
pub struct RawApp {
    pub addr: SocketAddr,
    _task: Owned,
}

impl RawApp {
    pub async fn start(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        head.push(stream.read_u8().await?);
                    }
                    stream.write_all(answer).await?;
                    stream.shutdown().await
                });
            }
        });
        Self {
            addr,
            _task: Owned(task),
        }
    }
}
