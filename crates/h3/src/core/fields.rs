//! Regular header fields: what makes a message malformed (RFC 9114 §4.2, §10.3).

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::Fault;
use super::qpack::decode::{Line, Name, Value};
use super::qpack::static_table;

/// Collects the regular fields of one field section.
#[derive(Debug)]
pub(crate) struct Regular {
    map: HeaderMap,
    content_length: Option<u64>,
    cookies: usize,
}

impl Regular {
    /// With room for as many fields as an encoded section of `len` bytes usually holds, so that the map is
    /// not built anew while it grows.
    pub(crate) fn with_room(len: usize) -> Self {
        /// Bytes of a field, as requests in a mesh have them.
        const USUAL: usize = 24;
        Self {
            map: HeaderMap::with_capacity((len / USUAL).min(24)),
            content_length: None,
            cookies: 0,
        }
    }

    /// Checks a field and adds it.
    pub(crate) fn push(&mut self, line: Line<'_>) -> Result<(), Fault> {
        let (name, known) = match line.name {
            Name::Static(index) => match static_table::header_name(index) {
                Some(name) => (name, true),
                None => return Err(Fault::malformed("a pseudo-header where none may stand")),
            },
            Name::Literal(bytes) => (
                // Refuses upper case, empty names and everything that is no token.
                HeaderName::from_lowercase(&bytes)
                    .map_err(|_| Fault::malformed("a field name is not a lower-case token"))?,
                false,
            ),
        };
        let mut value = match line.value {
            Value::Static(text) => HeaderValue::from_static(text),
            // Refuses NUL, CR, LF and other control characters.
            Value::Literal(bytes) => HeaderValue::from_maybe_shared(bytes)
                .map_err(|_| Fault::malformed("a field value holds a control character"))?,
        };
        value.set_sensitive(line.sensitive);
        // The static table holds no connection-specific name.
        if !known {
            if is_connection_specific(&name) {
                return Err(Fault::malformed(
                    "a field that is specific to a connection (RFC 9114 §4.2)",
                ));
            }
            if name == header::TE && !value.as_bytes().eq_ignore_ascii_case(b"trailers") {
                return Err(Fault::malformed("te says something other than trailers"));
            }
        }
        if name == header::CONTENT_LENGTH {
            self.content_length(&value)?;
        } else if name == header::COOKIE {
            self.cookies += 1;
        }
        self.map
            .try_append(name, value)
            .map(|_| ())
            .map_err(|_| Fault::TooLarge)
    }

    /// RFC 9110 §8.6; a repeated one is refused, equal or not.
    fn content_length(&mut self, value: &HeaderValue) -> Result<(), Fault> {
        if self.content_length.is_some() {
            return Err(Fault::malformed("content-length is sent twice"));
        }
        self.content_length = Some(
            parse_length(value.as_bytes())
                .ok_or(Fault::malformed("content-length is not a number"))?,
        );
        Ok(())
    }

    /// The `Host` field, of which there may be one.
    pub(crate) fn host(&self) -> Result<Option<&HeaderValue>, Fault> {
        let mut hosts = self.map.get_all(header::HOST).iter();
        match (hosts.next(), hosts.next()) {
            (host, None) => Ok(host),
            _ => Err(Fault::malformed("host is sent twice")),
        }
    }

    /// The fields, with split cookies joined (RFC 9114 §4.2.1), and the content length that they announce.
    pub(crate) fn finish(mut self) -> Result<(HeaderMap, Option<u64>), Fault> {
        if self.cookies > 1 {
            let crumbs: Vec<&[u8]> = self
                .map
                .get_all(header::COOKIE)
                .iter()
                .map(HeaderValue::as_bytes)
                .collect();
            let joined =
                HeaderValue::from_maybe_shared(bytes::Bytes::from(crumbs.join(&b"; "[..])))
                    .map_err(|_| Fault::malformed("a field value holds a control character"))?;
            self.map.insert(header::COOKIE, joined);
        }
        Ok((self.map, self.content_length))
    }
}

fn parse_length(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    str::from_utf8(digits).ok()?.parse().ok()
}

/// Fields that speak of one HTTP/1 connection and must not stand in HTTP/3 (RFC 9114 §4.2).
pub(crate) fn is_connection_specific(name: &HeaderName) -> bool {
    *name == header::CONNECTION
        || *name == header::TRANSFER_ENCODING
        || *name == header::UPGRADE
        || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}
