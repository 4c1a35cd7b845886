//! From a decoded field section to an `http` message, or the rule that it breaks (RFC 9114 §4.3).

use bytes::Bytes;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};

use super::Fault;
use super::fields::Regular;
use super::qpack::decode::{Limits, Value, decode};
use crate::Protocol;

/// Decodes and checks a request's header. Also gives the content length that it announces. `extended`: our
/// SETTINGS offered extended CONNECT.
pub(crate) fn request(
    block: &Bytes,
    limits: Limits,
    extended: bool,
) -> Result<(Request<()>, Option<u64>), Fault> {
    let mut pseudo = RequestPseudo::default();
    let mut regular = Regular::with_room(block.len());
    let mut pseudo_ended = false;
    decode(block, limits, |line| {
        let name = line.name.as_bytes();
        if name.first() != Some(&b':') {
            pseudo_ended = true;
            return regular.push(line);
        }
        if pseudo_ended {
            return Err(Fault::malformed("a pseudo-header after a regular field"));
        }
        match name {
            b":method" => pseudo.method(&line.value),
            b":scheme" => pseudo.scheme(&line.value),
            b":authority" => pseudo.authority(&line.value),
            b":path" => pseudo.path(&line.value),
            b":protocol" if extended => pseudo.protocol(&line.value),
            // RFC 8441 §4: nobody may use what was not offered.
            b":protocol" => Err(Fault::malformed(":protocol without extended CONNECT")),
            _ => Err(Fault::malformed("an unknown pseudo-header in a request")),
        }
    })?;
    let protocol = pseudo.protocol.take();
    let (method, uri) = pseudo.finish(protocol.is_some(), &regular)?;
    let (headers, length) = regular.finish()?;
    let mut request = Request::new(());
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(protocol);
    }
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    *request.version_mut() = http::Version::HTTP_3;
    Ok((request, length))
}

/// Decodes and checks a response's header, interim or final.
pub(crate) fn response(
    block: &Bytes,
    limits: Limits,
) -> Result<(Response<()>, Option<u64>), Fault> {
    let mut status = None;
    let mut regular = Regular::with_room(block.len());
    let mut pseudo_ended = false;
    decode(block, limits, |line| {
        let name = line.name.as_bytes();
        if name.first() != Some(&b':') {
            pseudo_ended = true;
            return regular.push(line);
        }
        if pseudo_ended {
            return Err(Fault::malformed("a pseudo-header after a regular field"));
        }
        if name != b":status" {
            return Err(Fault::malformed("an unknown pseudo-header in a response"));
        }
        let parsed = StatusCode::from_bytes(line.value.as_bytes())
            .map_err(|_| Fault::malformed(":status is not a status code"))?;
        once(&mut status, parsed, ":status is sent twice")
    })?;
    let status = status.ok_or(Fault::malformed("a response without :status"))?;
    // RFC 9114 §4.5.
    if status == StatusCode::SWITCHING_PROTOCOLS {
        return Err(Fault::malformed("status 101 does not exist in HTTP/3"));
    }
    let (headers, length) = regular.finish()?;
    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    *response.version_mut() = http::Version::HTTP_3;
    Ok((response, length))
}

/// Decodes and checks trailers: no pseudo-headers (RFC 9114 §4.3).
pub(crate) fn trailers(block: &Bytes, limits: Limits) -> Result<HeaderMap, Fault> {
    let mut regular = Regular::with_room(block.len());
    decode(block, limits, |line| match line.name.as_bytes().first() {
        Some(b':') => Err(Fault::malformed("a pseudo-header in trailers")),
        _ => regular.push(line),
    })?;
    Ok(regular.finish()?.0)
}

#[derive(Default)]
struct RequestPseudo {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    protocol: Option<Protocol>,
}

impl RequestPseudo {
    fn method(&mut self, value: &Value) -> Result<(), Fault> {
        let method = Method::from_bytes(value.as_bytes())
            .map_err(|_| Fault::malformed(":method is not a token"))?;
        once(&mut self.method, method, ":method is sent twice")
    }

    fn scheme(&mut self, value: &Value) -> Result<(), Fault> {
        let text = value.as_bytes();
        // RFC 3986 §3.1; `http` takes more than that, an empty one among them.
        let valid = text.first().is_some_and(u8::is_ascii_alphabetic)
            && text
                .iter()
                .all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b));
        let scheme = Scheme::try_from(text)
            .ok()
            .filter(|_| valid)
            .ok_or(Fault::malformed(":scheme is not a scheme"))?;
        once(&mut self.scheme, scheme, ":scheme is sent twice")
    }

    fn authority(&mut self, value: &Value) -> Result<(), Fault> {
        let authority = parse_authority(bytes_of(value))?;
        once(&mut self.authority, authority, ":authority is sent twice")
    }

    fn path(&mut self, value: &Value) -> Result<(), Fault> {
        let bytes = bytes_of(value);
        // `http` would cut a fragment off in silence.
        if bytes.contains(&b'#') {
            return Err(Fault::malformed(":path holds a fragment"));
        }
        if !bytes.starts_with(b"/") && bytes[..] != b"*"[..] {
            return Err(Fault::malformed(":path is neither absolute nor *"));
        }
        let path = PathAndQuery::from_maybe_shared(bytes)
            .map_err(|_| Fault::malformed(":path holds a forbidden character"))?;
        once(&mut self.path, path, ":path is sent twice")
    }

    fn protocol(&mut self, value: &Value) -> Result<(), Fault> {
        let protocol = str::from_utf8(value.as_bytes()).ok();
        let protocol = protocol
            .and_then(|text| Protocol::new(text).ok())
            .ok_or(Fault::malformed(":protocol is not a protocol's name"))?;
        once(&mut self.protocol, protocol, ":protocol is sent twice")
    }

    fn finish(self, extended: bool, regular: &Regular) -> Result<(Method, Uri), Fault> {
        let method = self
            .method
            .ok_or(Fault::malformed("a request without :method"))?;
        // RFC 8441 §4.
        if extended && method != Method::CONNECT {
            return Err(Fault::malformed(
                ":protocol in a request other than CONNECT",
            ));
        }
        let mut parts = http::uri::Parts::default();
        if method == Method::CONNECT && !extended {
            // RFC 9114 §4.4.
            if self.scheme.is_some() || self.path.is_some() {
                return Err(Fault::malformed("CONNECT with :scheme or :path"));
            }
            let authority = self
                .authority
                .ok_or(Fault::malformed("CONNECT without :authority"))?;
            if authority.port_u16().is_none_or(|port| port == 0) {
                return Err(Fault::malformed("CONNECT's :authority has no port"));
            }
            check_host(&authority, regular)?;
            parts.authority = Some(authority);
        } else {
            let path = self
                .path
                .ok_or(Fault::malformed("a request without :path"))?;
            if path.as_str() == "*" && method != Method::OPTIONS {
                return Err(Fault::malformed(":path * in a request other than OPTIONS"));
            }
            parts.scheme = Some(
                self.scheme
                    .ok_or(Fault::malformed("a request without :scheme"))?,
            );
            parts.authority = Some(authority_or_host(self.authority, regular)?);
            parts.path_and_query = Some(path);
        }
        let uri = Uri::from_parts(parts).map_err(|_| Fault::malformed("the parts make no URI"))?;
        Ok((method, uri))
    }
}

/// RFC 9114 §4.3.1: one of `:authority` and `Host`; both only when they agree.
fn authority_or_host(authority: Option<Authority>, regular: &Regular) -> Result<Authority, Fault> {
    if let Some(authority) = authority {
        check_host(&authority, regular)?;
        return Ok(authority);
    }
    match regular.host()? {
        Some(host) => parse_authority(Bytes::copy_from_slice(host.as_bytes())),
        None => Err(Fault::malformed("a request without :authority or host")),
    }
}

fn check_host(authority: &Authority, regular: &Regular) -> Result<(), Fault> {
    match regular.host()? {
        Some(host)
            if !host
                .as_bytes()
                .eq_ignore_ascii_case(authority.as_str().as_bytes()) =>
        {
            Err(Fault::malformed("host differs from :authority"))
        }
        _ => Ok(()),
    }
}

/// `host[:port]`, without user information (RFC 9114 §4.3.1).
fn parse_authority(bytes: Bytes) -> Result<Authority, Fault> {
    const FAULT: Fault = Fault::malformed(":authority or host is not host[:port]");
    if bytes.contains(&b'@') {
        return Err(Fault::malformed(":authority holds user information"));
    }
    let authority = Authority::from_maybe_shared(bytes).map_err(|_| FAULT)?;
    let host = authority.host();
    let port = &authority.as_str()[host.len()..];
    let port_is_valid = match port.strip_prefix(':') {
        Some(_) => authority.port_u16().is_some(),
        None => port.is_empty(),
    };
    if host.is_empty() || !port_is_valid {
        return Err(FAULT);
    }
    Ok(authority)
}

fn bytes_of(value: &Value) -> Bytes {
    match value {
        Value::Static(text) => Bytes::from_static(text.as_bytes()),
        Value::Literal(bytes) => bytes.clone(),
    }
}

fn once<T>(slot: &mut Option<T>, value: T, twice: &'static str) -> Result<(), Fault> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Fault::malformed(twice)),
    }
}
