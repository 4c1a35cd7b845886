//! One match of a route, compiled: path AND method AND headers AND query.

use std::borrow::Cow;
use std::cmp::Reverse;

use http::{HeaderMap, HeaderName, Method};
use regex::bytes::Regex;

use crate::path::hex;
use crate::request::RequestHead;

#[derive(Debug)]
pub(crate) struct Matcher {
    pub(crate) path: PathMatcher,
    pub(crate) method: Option<Method>,
    pub(crate) headers: Vec<(HeaderName, ValueMatcher)>,
    pub(crate) query: Vec<(String, ValueMatcher)>,
}

#[derive(Debug)]
pub(crate) enum PathMatcher {
    Exact(String),
    /// Without its last `/`, so that the root is empty.
    Prefix(String),
    Regex(Regex),
}

#[derive(Debug)]
pub(crate) enum ValueMatcher {
    Exact(String),
    Regex(Regex),
}

/// Sorts the matches of a service: the first that fits decides. Gateway API, `HTTPRouteRule`: exact path, then
/// longest prefix, then a method, then most headers, then most query parameters. The place of regular
/// expressions is left to us: after exact paths and before prefixes (else a rule for `/` would hide them all),
/// longest first.
pub(crate) type Precedence = (
    Reverse<u8>,
    Reverse<usize>,
    Reverse<bool>,
    Reverse<usize>,
    Reverse<usize>,
);

impl Matcher {
    pub(crate) fn precedence(&self) -> Precedence {
        let (rank, length) = match &self.path {
            PathMatcher::Exact(path) => (2, path.len()),
            PathMatcher::Regex(regex) => (1, regex.as_str().len()),
            PathMatcher::Prefix(path) => (0, path.len()),
        };
        (
            Reverse(rank),
            Reverse(length),
            Reverse(self.method.is_some()),
            Reverse(self.headers.len()),
            Reverse(self.query.len()),
        )
    }

    /// Cheapest first. Allocates only for a repeated header or an escaped query that meets a regular expression.
    pub(crate) fn fits(&self, head: &RequestHead<'_>) -> bool {
        self.method
            .as_ref()
            .is_none_or(|method| method == head.method())
            && self.path.fits(head.path())
            && self
                .headers
                .iter()
                .all(|(name, value)| value.fits_header(head.headers(), name))
            && self
                .query
                .iter()
                .all(|(name, value)| value.fits_query(head.query(), name))
    }
}

impl PathMatcher {
    fn fits(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == path,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || prefix.is_empty()),
            Self::Regex(regex) => regex.is_match(path.as_bytes()),
        }
    }
}

impl ValueMatcher {
    fn fits(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(exact) => exact.as_bytes() == value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }

    /// Several headers of a name are one, joined by commas (RFC 9110 §5.3).
    fn fits_header(&self, headers: &HeaderMap, name: &HeaderName) -> bool {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => false,
            (Some(only), None) => self.fits(only.as_bytes()),
            (Some(first), Some(second)) => {
                let mut joined = first.as_bytes().to_vec();
                for value in std::iter::once(second).chain(values) {
                    joined.push(b',');
                    joined.extend_from_slice(value.as_bytes());
                }
                self.fits(&joined)
            }
        }
    }

    /// Of a repeated parameter, the first value counts.
    fn fits_query(&self, query: Option<&str>, name: &str) -> bool {
        let first = query
            .unwrap_or_default()
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(key, _)| *unescape(key) == *name.as_bytes());
        first.is_some_and(|(_, value)| self.fits(&unescape(value)))
    }
}

/// A name or value of a query, as forms write them (`+` is a space). A `%` without digits stays as it is.
fn unescape(text: &str) -> Cow<'_, [u8]> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, rest) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Ok(high), Ok(low)) => {
                    out.push(high << 4 | low);
                    rest = tail;
                }
                _ => out.push(b'%'),
            },
            _ => out.push(*byte),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_text_is_unescaped_as_forms_write_it() {
        for (text, plain) in [
            ("", ""),
            ("a", "a"),
            ("a+b%20c", "a b c"),
            ("%41%4", "A%4"),
            ("%zz%", "%zz%"),
        ] {
            assert_eq!(&*unescape(text), plain.as_bytes(), "{text}");
        }
    }
}
