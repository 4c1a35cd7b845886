//! The static table (RFC 9204 Appendix A).

use std::sync::LazyLock;

use http::HeaderName;

/// Names and values by index.
#[rustfmt::skip]
pub(crate) static ENTRIES: [(&str, &str); LEN] = TABLE;

/// Number of entries.
pub(crate) const LEN: usize = 99;

#[rustfmt::skip]
const TABLE: [(&str, &str); LEN] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

/// For each entry the next one with the same name; 0 ends a chain.
static NEXT: [u8; LEN] = chains();
/// For each entry its name as a header name; pseudo-headers have none.
static NAMES: LazyLock<[Option<HeaderName>; LEN]> = LazyLock::new(|| {
    ENTRIES.map(|(name, _)| (!name.starts_with(':')).then(|| HeaderName::from_static(name)))
});

const fn chains() -> [u8; LEN] {
    let mut next = [0; LEN];
    let mut i = 0;
    while i < LEN {
        let mut j = i + 1;
        while j < LEN {
            if same(TABLE[i].0, TABLE[j].0) {
                next[i] = j as u8;
                break;
            }
            j += 1;
        }
        i += 1;
    }
    next
}

const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut i = 0;
    while i < a.len() {
        if a[i] != b[i] {
            return false;
        }
        i += 1;
    }
    true
}

/// The header name of an entry; `None` for a pseudo-header.
pub(crate) fn header_name(index: usize) -> Option<HeaderName> {
    NAMES[index].clone()
}

/// Where a field stands in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Name and value.
    Field(usize),
    /// The name, with another value.
    Name(usize),
    Nothing,
}

/// Looks a field up.
pub(crate) fn find(name: &str, value: &[u8]) -> Found {
    let Some(first) = first_index(name) else {
        return Found::Nothing;
    };
    let mut index = first;
    loop {
        if ENTRIES[index].1.as_bytes() == value {
            return Found::Field(index);
        }
        match NEXT[index] {
            0 => return Found::Name(first),
            next => index = usize::from(next),
        }
    }
}

/// First entry of each name. A `match` on strings compiles to a comparison of lengths first, which is
/// cheaper than hashing for names this short.
#[rustfmt::skip]
fn first_index(name: &str) -> Option<usize> {
    Some(match name {
        ":authority" => 0,
        ":path" => 1,
        "age" => 2,
        "content-disposition" => 3,
        "content-length" => 4,
        "cookie" => 5,
        "date" => 6,
        "etag" => 7,
        "if-modified-since" => 8,
        "if-none-match" => 9,
        "last-modified" => 10,
        "link" => 11,
        "location" => 12,
        "referer" => 13,
        "set-cookie" => 14,
        ":method" => 15,
        ":scheme" => 22,
        ":status" => 24,
        "accept" => 29,
        "accept-encoding" => 31,
        "accept-ranges" => 32,
        "access-control-allow-headers" => 33,
        "access-control-allow-origin" => 35,
        "cache-control" => 36,
        "content-encoding" => 42,
        "content-type" => 44,
        "range" => 55,
        "strict-transport-security" => 56,
        "vary" => 59,
        "x-content-type-options" => 61,
        "x-xss-protection" => 62,
        "accept-language" => 72,
        "access-control-allow-credentials" => 73,
        "access-control-allow-methods" => 76,
        "access-control-expose-headers" => 79,
        "access-control-request-headers" => 80,
        "access-control-request-method" => 81,
        "alt-svc" => 83,
        "authorization" => 84,
        "content-security-policy" => 85,
        "early-data" => 86,
        "expect-ct" => 87,
        "forwarded" => 88,
        "if-range" => 89,
        "origin" => 90,
        "purpose" => 91,
        "server" => 92,
        "timing-allow-origin" => 93,
        "upgrade-insecure-requests" => 94,
        "user-agent" => 95,
        "x-forwarded-for" => 96,
        "x-frame-options" => 97,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_entry_is_found_by_its_field() {
        for (index, (name, value)) in ENTRIES.iter().enumerate() {
            assert_eq!(find(name, value.as_bytes()), Found::Field(index));
            let Found::Name(first) = find(name, b"no such value") else {
                panic!("{name} is not found by name");
            };
            assert_eq!(ENTRIES[first].0, *name);
            assert!(first <= index);
        }
        assert_eq!(find("x-request-id", b""), Found::Nothing);
    }

    #[test]
    fn names_agree_with_entries() {
        for (index, (name, _)) in ENTRIES.iter().enumerate() {
            let expected = (!name.starts_with(':')).then_some(*name);
            assert_eq!(
                header_name(index).as_ref().map(HeaderName::as_str),
                expected
            );
        }
    }
}
