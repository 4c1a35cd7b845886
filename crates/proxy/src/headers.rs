//! What may pass from one hop to the next (RFC 9110 §7.6.1), and what may not.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

/// Hop-by-hop fields that end at each proxy whatever `Connection` says, with those that only a proxy reads.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("keep-alive"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
];

/// Fields that carry identity, routing or framing: `Connection: authorization` must not make them vanish
/// between the hop that decides on them and the one that trusts the decision.
fn is_end_to_end(name: &str) -> bool {
    const KEPT: [&str; 12] = [
        "host",
        "authorization",
        "content-length",
        "content-type",
        "cookie",
        "traceparent",
        "tracestate",
        "x-request-id",
        "x-forwarded-client-cert",
        "via",
        "proxy-status",
        "trailer",
    ];
    KEPT.contains(&name) || name.starts_with("x-forwarded-")
}

/// Removes what belongs to the hop that the message came over. Works in place: nothing is allocated
/// unless `Connection` names fields.
///
/// `te: trailers` is put back, since the next hop carries trailers (gRPC refuses calls without it).
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let wants_trailers = tokens(headers, &header::TE).any(|t| t.eq_ignore_ascii_case("trailers"));
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| !is_end_to_end(name.as_str()))
        .collect();
    for name in named.iter().chain(&HOP_BY_HOP) {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
    }
}

/// Whether the sender waits with the content until it is told to send it (RFC 9110 §10.1.1).
pub(crate) fn expects_continue(headers: &HeaderMap) -> bool {
    tokens(headers, &header::EXPECT).any(|token| token.eq_ignore_ascii_case("100-continue"))
}

/// How much content the head promises.
pub(crate) fn content_length(headers: &HeaderMap) -> Option<u64> {
    let value = headers.get(header::CONTENT_LENGTH)?;
    value.to_str().ok()?.parse().ok()
}

/// The transfer codings of a message that hold more than its framing, which is all that weft takes off: passed on without
/// their field, the content would be what it is not said to be (RFC 9112 §6.1).
pub(crate) fn foreign_coding(headers: &HeaderMap) -> Option<String> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    let codings: Vec<&str> = tokens(headers, &header::TRANSFER_ENCODING).collect();
    match *codings {
        [only] if only.eq_ignore_ascii_case("chunked") => None,
        _ => Some(codings.join(", ")),
    }
}

/// The comma-separated members of all lines of a field, without the empty ones.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

/// Whether a trailer field may be passed on: not what frames, routes or authenticates (RFC 9110 §6.5.1).
fn may_be_trailer(name: &HeaderName) -> bool {
    !(HOP_BY_HOP.contains(name)
        || [
            header::CONTENT_LENGTH,
            header::CONTENT_ENCODING,
            header::CONTENT_TYPE,
            header::CONTENT_RANGE,
            header::TRAILER,
            header::HOST,
            header::AUTHORIZATION,
            header::COOKIE,
            header::SET_COOKIE,
            header::EXPECT,
            header::RANGE,
        ]
        .contains(name)
        || name.as_str() == crate::xfcc::HEADER)
}

/// Drops the trailer fields that must not be trailers.
pub(crate) fn sanitise_trailers(trailers: &mut HeaderMap) {
    let refused: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| !may_be_trailer(name))
        .cloned()
        .collect();
    for name in &refused {
        trailers.remove(name);
    }
}

/// Times that this node's own name may stand in `via` before it is a loop. Not one: an application may
/// copy the fields of the request that it answers into those it makes.
const MAX_OWN_VIA: usize = 4;

/// Adds this node to `via` (RFC 9110 §7.6.3). False if its name is in there so often that the request
/// goes round in a circle.
pub(crate) fn append_via(headers: &mut HeaderMap, own: &HeaderValue) -> bool {
    if !headers.contains_key(header::VIA) {
        headers.insert(header::VIA, own.clone());
        return true;
    }
    let own_text = own.to_str().unwrap_or_default();
    if tokens(headers, &header::VIA)
        .filter(|t| *t == own_text)
        .count()
        >= MAX_OWN_VIA
    {
        return false;
    }
    headers.append(header::VIA, own.clone());
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn rfc9110_7_6_1_hop_by_hop_fields_end_here() {
        for (given, left) in [
            (
                vec![("connection", "close"), ("accept", "*/*")],
                vec!["accept"],
            ),
            (
                vec![
                    ("connection", "x-a, X-B"),
                    ("x-a", "1"),
                    ("x-b", "2"),
                    ("x-c", "3"),
                ],
                vec!["x-c"],
            ),
            (
                vec![
                    ("keep-alive", "timeout=5"),
                    ("proxy-connection", "keep-alive"),
                    ("transfer-encoding", "chunked"),
                    ("upgrade", "h2c"),
                    ("proxy-authorization", "basic x"),
                ],
                vec![],
            ),
            (vec![("te", "gzip, trailers")], vec!["te"]),
            (vec![("te", "gzip")], vec![]),
        ] {
            let mut headers = map(&given);
            strip_hop_by_hop(&mut headers);
            assert_eq!(names(&headers), left, "{given:?}");
        }
        let mut te = map(&[("te", "gzip, trailers")]);
        strip_hop_by_hop(&mut te);
        assert_eq!(te[header::TE], "trailers");
    }

    #[test]
    fn connection_cannot_strip_what_policy_or_framing_rely_on() {
        for name in [
            "authorization",
            "host",
            "content-length",
            "x-forwarded-for",
            "x-forwarded-client-cert",
            "traceparent",
            "x-request-id",
        ] {
            let mut headers = map(&[("connection", name), (name, "1")]);
            strip_hop_by_hop(&mut headers);
            assert_eq!(names(&headers), [name]);
        }
    }

    #[test]
    fn framing_routing_and_credentials_are_dropped_from_trailers() {
        let mut trailers = map(&[
            ("grpc-status", "0"),
            ("content-length", "5"),
            ("transfer-encoding", "chunked"),
            ("authorization", "x"),
            ("host", "evil"),
            ("x-forwarded-client-cert", "By=evil"),
        ]);
        sanitise_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["grpc-status"]);
    }

    #[test]
    fn rfc9112_6_1_chunked_alone_is_framing() {
        for (given, foreign) in [
            (vec![], None),
            (vec![("transfer-encoding", "Chunked")], None),
            (
                vec![("transfer-encoding", "gzip, chunked")],
                Some("gzip, chunked"),
            ),
            (vec![("transfer-encoding", "gzip")], Some("gzip")),
            (
                vec![("transfer-encoding", "chunked, chunked")],
                Some("chunked, chunked"),
            ),
        ] {
            let said = foreign_coding(&map(&given));
            assert_eq!(said.as_deref(), foreign, "{given:?}");
        }
    }

    #[test]
    fn via_is_appended_and_tells_a_circle() {
        let own = HeaderValue::from_static("1.1 orders.default");
        let mut headers = map(&[("via", "1.0 somebody, 1.1 orders.default")]);
        for _ in 0..3 {
            assert!(append_via(&mut headers, &own));
        }
        assert!(!append_via(&mut headers, &own), "seen four times");
        assert_eq!(headers.get_all(header::VIA).iter().count(), 4);
    }
}
