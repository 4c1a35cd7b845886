//! What is asked of a pair: sizes, header fields, connections, schedule.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// One workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Workload {
    /// Bytes of each reply's body.
    pub(crate) size: u64,
    /// Header fields of the request, and of the reply.
    pub(crate) fields: u8,
    /// Connections of the client.
    pub(crate) connections: u32,
    /// Requests a second on a fixed schedule; 0 is a closed loop: each connection asks again at once.
    pub(crate) rate: u32,
}

impl Workload {
    /// A closed loop.
    pub(crate) const fn closed(size: u64, fields: u8, connections: u32) -> Self {
        Self {
            size,
            fields,
            connections,
            rate: 0,
        }
    }

    /// A fixed schedule, over enough connections that none of it waits for an answer.
    pub(crate) const fn open(size: u64, rate: u32) -> Self {
        Self {
            size,
            fields: 20,
            connections: 128,
            rate,
        }
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        let (size, fields, connections) = (bytes(self.size), self.fields, self.connections);
        match self.rate {
            0 => format!("{size}, {fields} fields, {connections} conn."),
            rate => format!("{size}, {fields} fields, {rate} req/s"),
        }
    }

    /// The path that asks the server for it.
    pub(crate) fn path(&self) -> String {
        format!("/{}/{}", self.size, self.fields)
    }
}

/// How long a workload runs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    /// Not counted.
    pub(crate) warm_up: Duration,
    /// Counted.
    pub(crate) measured: Duration,
}

/// A size for people.
pub(crate) fn bytes(size: u64) -> String {
    match size {
        size if size >= 1 << 20 && size.is_multiple_of(1 << 20) => format!("{} MiB", size >> 20),
        size if size >= 1_000_000 => format!("{} MB", size / 1_000_000),
        size if size >= 1 << 10 && size.is_multiple_of(1 << 10) => format!("{} KiB", size >> 10),
        size => format!("{size} B"),
    }
}

/// Header fields as browsers and tracing send them, to be cut to the wanted number. `host` comes first.
const REQUEST_FIELDS: [(&str, &str); 19] = [
    (
        "user-agent",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    ),
    ("accept", "application/json, text/plain;q=0.9, */*;q=0.8"),
    ("accept-language", "en-GB,en;q=0.7,de;q=0.3"),
    ("accept-encoding", "gzip, deflate, br, zstd"),
    (
        "referer",
        "https://shop.example.com/orders/2026/11/25?page=3&sort=date",
    ),
    (
        "cookie",
        "session=5f2b0c8e9d7a4e1f8b6c3d2a1e0f9b8c; theme=dark; consent=essential",
    ),
    (
        "authorization",
        "Bearer eyJhbGciOiJFUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJvcmRlcnMifQ.c2lnbmF0dXJl",
    ),
    (
        "traceparent",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ),
    ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
    ("x-b3-traceid", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ("x-b3-spanid", "00f067aa0ba902b7"),
    ("x-b3-sampled", "1"),
    (
        "baggage",
        "userId=alice,serverNode=DF%2028,isProduction=false",
    ),
    ("x-tenant", "acme-europe"),
    ("sec-fetch-dest", "empty"),
    ("sec-fetch-mode", "cors"),
    ("sec-fetch-site", "same-origin"),
    ("cache-control", "no-cache"),
    ("pragma", "no-cache"),
];

/// Fields of a reply. `content-length` comes first.
const REPLY_FIELDS: [(&str, &str); 19] = [
    ("content-type", "application/json; charset=utf-8"),
    ("date", "Wed, 25 Nov 2026 05:00:00 GMT"),
    ("server", "orders/3.2.1"),
    ("cache-control", "private, max-age=0, must-revalidate"),
    ("etag", "W/\"2a-5f2b0c8e9d7a4e1f8b6c3d2a1e0f9b8c\""),
    ("vary", "accept-encoding, origin"),
    (
        "strict-transport-security",
        "max-age=31536000; includeSubDomains",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "strict-origin-when-cross-origin"),
    (
        "content-security-policy",
        "default-src 'none'; frame-ancestors 'none'",
    ),
    ("access-control-allow-origin", "https://shop.example.com"),
    ("access-control-expose-headers", "etag, x-request-cost"),
    ("x-request-cost", "17"),
    ("x-ratelimit-limit", "5000"),
    ("x-ratelimit-remaining", "4987"),
    ("x-ratelimit-reset", "1795583000"),
    ("server-timing", "db;dur=1.7, app;dur=3.4"),
    ("x-region", "eu-central-1"),
];

/// The bytes of the request for a workload.
pub(crate) fn request(workload: &Workload, host: &str) -> Vec<u8> {
    let mut head = format!("GET {} HTTP/1.1\r\nhost: {host}\r\n", workload.path());
    push(&mut head, &REQUEST_FIELDS, workload.fields);
    head.into_bytes()
}

/// The head of the reply with a body of `size`.
pub(crate) fn reply_head(size: u64, fields: u8) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n");
    push(&mut head, &REPLY_FIELDS, fields);
    head.into_bytes()
}

fn push(head: &mut String, fields: &[(&str, &str)], count: u8) {
    let more = usize::from(count).saturating_sub(1);
    for (name, value) in fields.iter().take(more) {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_have_the_number_of_fields_that_is_asked_for() {
        for fields in [1, 3, 20] {
            let wanted = usize::from(fields) + 2;
            for head in [
                request(&Workload::closed(100, fields, 1), "server"),
                reply_head(100, fields),
            ] {
                let text = String::from_utf8(head).unwrap();
                assert_eq!(text.split("\r\n").count(), wanted + 1, "{text}");
                assert!(text.ends_with("\r\n\r\n"));
            }
        }
    }

    #[test]
    fn sizes_are_named_as_people_say_them() {
        assert_eq!(bytes(100), "100 B");
        assert_eq!(bytes(10 << 10), "10 KiB");
        assert_eq!(bytes(1 << 20), "1 MiB");
        assert_eq!(bytes(10_000_000), "10 MB");
    }
}
