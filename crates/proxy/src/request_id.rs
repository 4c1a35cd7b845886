//! `x-request-id`: one id that the logs and errors of both sides share.

use http::{HeaderMap, HeaderName, HeaderValue};

/// The field's name.
pub(crate) const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id that is taken over from a caller.
const MAX_LEN: usize = 128;

/// The id that the message came with, if it has exactly one and it is usable: it goes into logs and into
/// a quoted string of `proxy-status`, so no quotes, spaces or control characters.
fn given(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut all = headers.get_all(HEADER).iter();
    let value = all.next()?;
    let usable = |b: &u8| b.is_ascii_alphanumeric() || b"-_.:+/=~".contains(b);
    let bytes = value.as_bytes();
    let one = all.next().is_none();
    (one && (1..=MAX_LEN).contains(&bytes.len()) && bytes.iter().all(usable)).then_some(value)
}

/// Makes sure that the message has one usable id, and gives it back. `fresh` is asked for 128 random bits
/// only when it has none.
pub(crate) fn ensure(headers: &mut HeaderMap, fresh: impl FnOnce() -> u128) -> HeaderValue {
    if let Some(value) = given(headers) {
        return value.clone();
    }
    let value = HeaderValue::try_from(format!("{:032x}", fresh()))
        .expect("hexadecimal digits are visible ASCII");
    headers.insert(HEADER, value.clone());
    value
}

/// The id as text: [`ensure`] gives visible ASCII only.
pub(crate) fn text(id: &HeaderValue) -> &str {
    id.to_str().unwrap_or("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usable_id_is_kept_and_any_other_replaced() {
        for (given, kept) in [
            (vec!["a1-B2_c.d:e"], true),
            (vec![], false),
            (vec![""], false),
            (vec!["a b"], false),
            (vec!["a\"; error=x"], false),
            (vec!["one", "two"], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in &given {
                headers.append(HEADER, HeaderValue::from_static(value));
            }
            let id = ensure(&mut headers, || 0xabc);
            let expected = if kept {
                given[0].to_owned()
            } else {
                format!("{:032x}", 0xabc)
            };
            assert_eq!(id, expected, "{given:?}");
            assert_eq!(headers.get_all(HEADER).iter().count(), 1, "{given:?}");
        }
        let mut headers = HeaderMap::new();
        headers.insert(HEADER, HeaderValue::try_from("x".repeat(129)).unwrap());
        assert_eq!(ensure(&mut headers, || 1).len(), 32);
    }
}
