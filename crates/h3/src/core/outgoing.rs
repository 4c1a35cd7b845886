//! From an `http` message to a HEADERS frame. What a peer would call malformed is refused here
//! (RFC 9114 §4.2, §4.3, §4.4): an endpoint must not send it.

use http::header::{self, HeaderMap};
use http::{Method, Request, Response, StatusCode};

use super::fields::is_connection_specific;
use super::frame::kind;
use super::qpack::encode;
use super::varint;
use crate::Protocol;

/// Why a message cannot be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unsendable {
    /// It would be malformed.
    Rule(&'static str),
    /// The peer does not take field sections of this size.
    TooLarge { size: u64, limit: u64 },
}

/// A request's HEADERS frame. `limit` is what the peer takes.
pub(crate) fn request(request: &Request<()>, limit: u64) -> Result<Vec<u8>, Unsendable> {
    let uri = request.uri();
    let method = request.method();
    let authority = match (uri.authority(), request.headers().get(header::HOST)) {
        (Some(authority), Some(host))
            if !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            return Err(Unsendable::Rule("host differs from the URI's authority"));
        }
        (Some(authority), _) => authority.as_str().as_bytes(),
        (None, Some(host)) => host.as_bytes(),
        (None, None) => return Err(Unsendable::Rule("a request has no authority")),
    };
    let scheme = uri.scheme_str().unwrap_or("https");
    let path = match uri.path_and_query().map_or("", |p| p.as_str()) {
        "" if method == Method::OPTIONS => "*",
        "" => "/",
        path => path,
    };
    let protocol = request.extensions().get::<Protocol>();
    if protocol.is_some() && method != Method::CONNECT {
        return Err(Unsendable::Rule("only CONNECT may name a protocol"));
    }
    let connect = method == Method::CONNECT && protocol.is_none();
    if connect && uri.port_u16().is_none_or(|port| port == 0) {
        return Err(Unsendable::Rule("CONNECT needs an authority with a port"));
    }
    let pseudo: [(&str, &[u8]); 5] = [
        (":method", method.as_str().as_bytes()),
        (":authority", authority),
        (":scheme", scheme.as_bytes()),
        (":path", path.as_bytes()),
        (
            ":protocol",
            protocol.map_or("", Protocol::as_str).as_bytes(),
        ),
    ];
    let used = match protocol {
        // RFC 9114 §4.4: plain CONNECT has neither scheme nor path.
        None if connect => 2,
        None => 4,
        // RFC 8441 §4: extended CONNECT has both.
        Some(_) => 5,
    };
    headers_frame(&pseudo[..used], request.headers(), limit)
}

/// A response's HEADERS frame.
pub(crate) fn response(response: &Response<()>, limit: u64) -> Result<Vec<u8>, Unsendable> {
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Unsendable::Rule("status 101 does not exist in HTTP/3"));
    }
    let status = response.status();
    headers_frame(
        &[(":status", status.as_str().as_bytes())],
        response.headers(),
        limit,
    )
}

/// The HEADERS frame of trailers.
pub(crate) fn trailers(trailers: &HeaderMap, limit: u64) -> Result<Vec<u8>, Unsendable> {
    headers_frame(&[], trailers, limit)
}

/// Appends the head of a DATA frame.
pub(crate) fn data_head(len: usize, out: &mut Vec<u8>) {
    varint::encode(kind::DATA, out);
    varint::encode(len as u64, out);
}

fn headers_frame(
    pseudo: &[(&str, &[u8])],
    headers: &HeaderMap,
    limit: u64,
) -> Result<Vec<u8>, Unsendable> {
    let size = section_size(pseudo, headers)?;
    if size > limit {
        return Err(Unsendable::TooLarge { size, limit });
    }
    // The block is never longer than the section's size and its prefix: a line's overhead is at most 12
    // bytes where the size counts 32. So the width of the length field can be chosen before encoding.
    let wide = size + 2 > 0x3fff;
    let start = if wide { 5 } else { 3 };
    let mut out = Vec::with_capacity(start + 16 + size as usize - 28 * headers.len());
    out.resize(start, 0);
    encode::prefix(&mut out);
    for (name, value) in pseudo {
        encode::field(name, value, false, &mut out);
    }
    for (name, value) in headers {
        if *name != header::HOST {
            encode::field(
                name.as_str(),
                value.as_bytes(),
                value.is_sensitive(),
                &mut out,
            );
        }
    }
    let len = out.len() - start;
    out[0] = kind::HEADERS as u8;
    if wide {
        out[1..5].copy_from_slice(&(len as u32 | 0x8000_0000).to_be_bytes());
    } else {
        out[1..3].copy_from_slice(&(len as u16 | 0x4000).to_be_bytes());
    }
    Ok(out)
}

/// RFC 9114 §4.2.2, and the checks of each field.
fn section_size(pseudo: &[(&str, &[u8])], headers: &HeaderMap) -> Result<u64, Unsendable> {
    let mut size: usize = pseudo.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
    for (name, value) in headers {
        if is_connection_specific(name) {
            return Err(Unsendable::Rule(
                "a field that is specific to a connection must be taken out before it is sent",
            ));
        }
        if *name == header::TE && value.as_bytes() != b"trailers" {
            return Err(Unsendable::Rule("te may only say trailers"));
        }
        size += name.as_str().len() + value.len() + 32;
    }
    // No field section of this size is useful, and its length must fit the frame's four bytes.
    if size >= 1 << 28 {
        let (size, limit) = (size as u64, 1 << 28);
        return Err(Unsendable::TooLarge { size, limit });
    }
    Ok(size as u64)
}
