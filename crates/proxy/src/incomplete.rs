//! How one sidecar tells the other that its application broke off in the midst of an answer: in a trailer field
//! (RFC 9209 §2), behind which the stream does not end. So the answer never looks whole, and nothing of it is lost, as it
//! may be with a reset.

use http::{HeaderMap, HeaderValue};

use crate::respond::{PROXY_STATUS, Speaker, quote};

/// Its error type (RFC 9209 §2.3.16).
const ERROR: &str = "error=http_response_incomplete;";

/// The trailers that say it. `details` is one sentence.
pub(crate) fn trailers(speaker: &Speaker<'_>, details: &str) -> HeaderMap {
    let mut out = format!("{}; {ERROR} details=", speaker.node);
    quote(&mut out, details);
    out.push_str("; side=");
    out.push_str(speaker.side);
    out.push_str("; request-id=");
    quote(&mut out, speaker.request_id);
    let value = HeaderValue::try_from(out).expect("quote leaves visible ASCII only");
    HeaderMap::from_iter([(PROXY_STATUS, value)])
}

/// What the sidecar at the other end says in these trailers, if they are such. An application that writes them itself
/// breaks off its own answer.
pub(crate) fn said(trailers: &HeaderMap) -> Option<&str> {
    let mut all = trailers.get_all(PROXY_STATUS).iter();
    all.find_map(|value| {
        let text = value.to_str().ok()?;
        let (node, rest) = text.split_once("; ")?;
        (node.ends_with("/inbound") && rest.starts_with(ERROR)).then_some(text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc9209_2_a_trailer_says_that_an_answer_broke_off() {
        let speaker = Speaker {
            node: "invoices.default/inbound",
            side: "inbound",
            revision: 12,
            request_id: "r-1",
            tunnel: false,
        };
        let made = trailers(&speaker, "the application broke off: \"x\"");
        let text = "invoices.default/inbound; error=http_response_incomplete; details=\"the application broke off: \\\"x\\\"\"; side=inbound; request-id=\"r-1\"";
        assert_eq!(made[PROXY_STATUS], text);
        assert_eq!(said(&made), Some(text));
    }

    #[test]
    fn what_others_say_in_trailers_is_no_break() {
        for text in [
            "cdn; error=http_response_incomplete; details=\"x\"",
            "invoices.default/inbound; error=http_request_denied; details=\"x\"",
            "invoices.default/inbound",
            "",
        ] {
            let value = HeaderValue::from_static(text);
            let trailers = HeaderMap::from_iter([(PROXY_STATUS, value)]);
            assert_eq!(said(&trailers), None, "{text}");
        }
        assert_eq!(said(&HeaderMap::new()), None);
    }
}
