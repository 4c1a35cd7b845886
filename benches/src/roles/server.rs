//! The service behind every pair, on one port: what a connection begins with says what it wants.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::net;
use crate::error;
use crate::load::bulk::WORD;
use crate::load::grpc;

/// Largest reply.
const MAX_BODY: usize = 16 * 1024 * 1024;
/// Written at once by the source of bytes.
const CHUNK: usize = 256 * 1024;

/// Fields of a reply beside `content-type`, `content-length` and `date`.
const MORE_FIELDS: [(&str, &str); 17] = [
    ("access-control-allow-origin", "https://shop.example"),
    ("access-control-expose-headers", "x-total-count"),
    ("age", "0"),
    ("cache-control", "private, max-age=0, must-revalidate"),
    ("content-language", "en-GB"),
    ("etag", "\"33a64df551425fcc55e4d42a148795d9f25f89d4\""),
    ("last-modified", "Tue, 24 Nov 2026 10:11:12 GMT"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    ("server-timing", "db;dur=1.4, render;dur=0.3"),
    (
        "strict-transport-security",
        "max-age=31536000; includeSubDomains",
    ),
    ("vary", "accept-encoding, origin"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-ratelimit-limit", "1000"),
    ("x-ratelimit-remaining", "998"),
    ("x-request-cost", "3"),
    ("x-served-by", "invoices-7d9f8c6b54-x2kqp"),
];

pub(super) async fn run(listen: SocketAddr, ready_file: &Path) -> error::Result<()> {
    let zeros = Bytes::from(vec![b'x'; MAX_BODY]);
    net::serve(listen, ready_file, move |stream| {
        serve(stream, zeros.clone())
    })
    .await
}

async fn serve(mut stream: TcpStream, zeros: Bytes) {
    let Some(word) = first_word(&stream).await else {
        return;
    };
    if word == *WORD {
        while stream.write_all(&zeros[..CHUNK]).await.is_ok() {}
        return;
    }
    let io = TokioIo::new(stream);
    if word == *b"PRI " {
        let service = service_fn(move |request: Request<Incoming>| {
            let zeros = zeros.clone();
            async move {
                Ok::<_, hyper::Error>(match request.uri().path() == grpc::METHOD {
                    true => echo(request).await?,
                    false => answer(&request, &zeros).map(whole),
                })
            }
        });
        let _ = http2::Builder::new(TokioExecutor::new())
            .max_concurrent_streams(10_000)
            .serve_connection(io, service)
            .await;
    } else {
        let service = service_fn(move |request| {
            let answer = answer(&request, &zeros);
            async move { Ok::<_, Infallible>(answer) }
        });
        let _ = http1::Builder::new().serve_connection(io, service).await;
    }
}

type Boxed = BoxBody<Bytes, Infallible>;

fn whole(body: Full<Bytes>) -> Boxed {
    body.boxed()
}

/// The unary call: the message as it came, and the trailer that says that all went well.
async fn echo(request: Request<Incoming>) -> Result<Response<Boxed>, hyper::Error> {
    let message = request.into_body().collect().await?.to_bytes();
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(message).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut response = Response::new(body.boxed());
    let kind = HeaderValue::from_static("application/grpc+proto");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// The first four bytes, left in the socket. `None` if there are none within a while.
async fn first_word(stream: &TcpStream) -> Option<[u8; 4]> {
    let mut word = [0; 4];
    let peeked = async {
        loop {
            match stream.peek(&mut word).await {
                Ok(4) => return Some(()),
                Ok(0) | Err(_) => return None,
                Ok(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    };
    // A pair may open its connection to the server before it has a request for it.
    peeked.await.map(|()| word)
}

/// `GET /bytes/SIZE?fields=N`
fn answer(request: &Request<Incoming>, zeros: &Bytes) -> Response<Full<Bytes>> {
    let size = request.uri().path().strip_prefix("/bytes/");
    let size: Option<usize> = size.and_then(|size| size.parse().ok());
    let Some(size) = size.filter(|size| *size <= MAX_BODY) else {
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    let fields = request
        .uri()
        .query()
        .and_then(|query| query.strip_prefix("fields="));
    let fields: usize = fields.and_then(|fields| fields.parse().ok()).unwrap_or(3);
    let mut response = Response::new(Full::new(zeros.slice(..size)));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    for (name, value) in MORE_FIELDS.iter().take(fields.saturating_sub(3)) {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    response
}
