//! HTTP/1.1 with as little cost as possible: the client shares two cores with what it measures.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::error::{Error, Result};

/// Largest reply head that is read.
const MAX_HEAD: usize = 16 * 1024;
/// Read at once: a 1 MiB body in a few system calls.
const READ: usize = 256 * 1024;
/// Most fields of a reply.
const MAX_FIELDS: usize = 64;

/// Fields as a browser, gRPC and tracing send them, beside `host`, `user-agent` and `accept`.
const MORE_FIELDS: [(&str, &str); 17] = [
    ("accept-encoding", "gzip, deflate, br, zstd"),
    ("accept-language", "en-GB,en;q=0.9,de;q=0.7"),
    (
        "authorization",
        "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJvcmRlcnMiLCJhdWQiOiJpbnZvaWNlcyJ9.c2lnbmF0dXJlLW9mLXNpeHR5LWZvdXItYnl0ZXM",
    ),
    ("cache-control", "no-cache"),
    (
        "cookie",
        "session=4f0c2a7d9b1e48c6a3d5; theme=dark; consent=analytics",
    ),
    ("origin", "https://shop.example"),
    ("referer", "https://shop.example/basket/checkout?step=2"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("tracestate", "vendor=00f067aa0ba902b7,other=5b1d"),
    ("x-b3-sampled", "1"),
    ("x-client-version", "8.14.2-release+5123"),
    ("x-correlation-id", "b0a9f7c2-6a4e-4f7e-9d1c-2b7c1c1e7f55"),
    ("x-tenant", "eu-west-1/retail/4711"),
    ("priority", "u=1, i"),
];

/// What is asked for: a GET whose reply has so many bytes and fields, and that has as many fields itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Workload {
    /// `Host` of the request.
    pub(crate) host: String,
    /// Bytes of the reply's body.
    pub(crate) size: u64,
    /// Fields of the request, from 3 to 20; the reply has as many.
    pub(crate) fields: usize,
}

impl Workload {
    /// The request as it goes over the wire.
    fn request(&self) -> Vec<u8> {
        let mut text = format!(
            "GET /bytes/{}?fields={} HTTP/1.1\r\nhost: {}\r\nuser-agent: weft-benches/0.1\r\naccept: */*\r\n",
            self.size, self.fields, self.host
        );
        for (name, value) in MORE_FIELDS.iter().take(self.fields.saturating_sub(3)) {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        text.into_bytes()
    }
}

/// A kept-alive connection and the request that it sends.
#[derive(Debug)]
pub(crate) struct Client {
    stream: TcpStream,
    request: Vec<u8>,
    buffer: Vec<u8>,
    filled: usize,
    /// Bytes of bodies that have come, over all connections that share it.
    arrived: Arc<AtomicU64>,
}

/// A reply's head, as far as it matters here.
struct Head {
    status: u16,
    length: usize,
    body: usize,
    close: bool,
}

impl Client {
    /// Connects to a pair's entry; counts in `arrived` what comes of bodies.
    pub(crate) async fn connect(
        entry: SocketAddr,
        workload: &Workload,
        arrived: &Arc<AtomicU64>,
    ) -> Result<Self> {
        let what = || format!("connect to {entry}");
        let stream = TcpStream::connect(entry).await.map_err(Error::io(what()))?;
        stream.set_nodelay(true).map_err(Error::io(what()))?;
        Ok(Self {
            stream,
            request: workload.request(),
            buffer: vec![0; READ.max(MAX_HEAD)],
            filled: 0,
            arrived: Arc::clone(arrived),
        })
    }

    /// Sends the request and reads the whole reply.
    ///
    /// After an error the connection must not be used again.
    pub(crate) async fn exchange(&mut self) -> Result<()> {
        let sent = self.stream.write_all(&self.request).await;
        sent.map_err(Error::io("send a request"))?;
        self.filled = 0;
        let head = loop {
            self.fill().await?;
            if let Some(head) = self.head()? {
                break head;
            }
        };
        if head.status != 200 {
            let text = String::from_utf8_lossy(&self.buffer[..self.filled]).into_owned();
            return Err(Error::Protocol(text));
        }
        self.skip(head.length, self.filled - head.body).await?;
        if head.close {
            return Err(Error::Protocol("the reply closes the connection".into()));
        }
        Ok(())
    }

    async fn fill(&mut self) -> Result<()> {
        let space = &mut self.buffer[self.filled..];
        if space.is_empty() {
            return Err(Error::Protocol(
                "a reply's head of more than 256 KiB".into(),
            ));
        }
        let got = self.stream.read(space).await;
        match got.map_err(Error::io("read a reply"))? {
            0 => Err(Error::Protocol("the connection ended".into())),
            more => {
                self.filled += more;
                Ok(())
            }
        }
    }

    /// Reads what is left of a body of `length` bytes.
    async fn skip(&mut self, length: usize, mut got: usize) -> Result<()> {
        self.arrived.fetch_add(got as u64, Ordering::Relaxed);
        while got < length {
            let want = (length - got).min(self.buffer.len());
            let read = self.stream.read(&mut self.buffer[..want]).await;
            match read.map_err(Error::io("read a reply"))? {
                0 => return Err(Error::Protocol("a reply was cut short".into())),
                more => {
                    got += more;
                    self.arrived.fetch_add(more as u64, Ordering::Relaxed);
                }
            }
        }
        if got > length {
            return Err(Error::Protocol("more bytes than the reply has".into()));
        }
        Ok(())
    }

    fn head(&self) -> Result<Option<Head>> {
        let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = response.parse(&self.buffer[..self.filled]);
        let body = match parsed.map_err(|error| Error::Protocol(error.to_string()))? {
            httparse::Status::Partial => return Ok(None),
            httparse::Status::Complete(body) => body,
        };
        let field = |name: &str| {
            let found = response
                .headers
                .iter()
                .find(|field| field.name.eq_ignore_ascii_case(name));
            found.and_then(|field| std::str::from_utf8(field.value).ok())
        };
        let length = field("content-length").and_then(|value| value.parse().ok());
        Ok(Some(Head {
            status: response.code.unwrap_or_default(),
            length: length
                .ok_or_else(|| Error::Protocol("a reply without content-length".into()))?,
            body,
            close: field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_fields_that_were_asked_for() {
        for fields in [3, 20] {
            let workload = Workload {
                host: "echo".into(),
                size: 100,
                fields,
            };
            let text = String::from_utf8(workload.request()).unwrap();
            let lines = text.trim_end().lines().count();
            assert_eq!(lines - 1, fields, "{text}");
        }
    }
}
