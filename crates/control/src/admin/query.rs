//! Query strings and path segments of the local API: percent-encoding, and nothing more.

use std::collections::BTreeMap;

/// One segment or value, percent-encoded.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The reverse of [`escape`]; `None` if it is malformed.
pub(super) fn unescape(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let digits = [bytes.next()?, bytes.next()?];
            let digits = std::str::from_utf8(&digits).ok()?;
            if digits.starts_with('+') {
                return None;
            }
            out.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

/// `?a=b&c=d`, or nothing.
pub(super) fn encode(pairs: &[(&str, &str)]) -> String {
    let mut out = String::new();
    for (index, (name, value)) in pairs.iter().enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        out.push_str(name);
        out.push('=');
        out.push_str(&escape(value));
    }
    out
}

/// Names and values of a query string; `None` if it is malformed or gives a name twice.
pub(super) fn decode(query: &str) -> Option<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if out.insert(unescape(name)?, unescape(value)?).is_some() {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_round_trips_and_a_malformed_one_is_none() {
        let pairs = [("kind", "HTTPRoute"), ("name", "a b&c=d/ü%")];
        let text = encode(&pairs);
        let read = decode(&text[1..]).unwrap();
        assert_eq!(read["name"], "a b&c=d/ü%");
        assert_eq!(read["kind"], "HTTPRoute");
        for bad in ["a", "a=%4", "a=%+1", "a=%zz", "a=1&a=2", "a=%ff"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(decode("").unwrap().len(), 0);
    }
}
