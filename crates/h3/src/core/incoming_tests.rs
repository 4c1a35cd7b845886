//! Tables of RFC 9114 §4.2 to §4.4: what is malformed, and what is not.

use bytes::Bytes;
use http::header;

use super::qpack::decode::Limits;
use super::qpack::encode;
use super::{Fault, incoming};
use crate::Code;

const LIMITS: Limits = Limits {
    size: 65_536,
    fields: 128,
};
const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "https"),
    (":authority", "invoices.default:80"),
    (":path", "/"),
];
const CONNECT: [(&str, &str); 2] = [
    (":method", "CONNECT"),
    (":authority", "invoices.default:80"),
];

fn block(fields: &[(&str, &str)]) -> Bytes {
    let mut out = Vec::new();
    encode::prefix(&mut out);
    for (name, value) in fields {
        encode::field(name, value.as_bytes(), false, &mut out);
    }
    out.into()
}

/// `GET` with `from` replaced by `to`, fields added at the end.
fn get(replace: Option<(&str, &[(&str, &str)])>, add: &[(&str, &str)]) -> Bytes {
    let mut fields = Vec::new();
    for field in GET {
        match replace {
            Some((name, with)) if name == field.0 => {
                let found = with.iter().map(|(n, v)| (*n, *v));
                fields.extend(found);
            }
            _ => fields.push(field),
        }
    }
    fields.extend_from_slice(add);
    block(&fields)
}

/// As a server that does not offer extended CONNECT.
fn plain(block: &Bytes, limits: Limits) -> Result<(http::Request<()>, Option<u64>), Fault> {
    incoming::request(block, limits, false)
}

fn is_malformed<T: std::fmt::Debug>(result: Result<T, Fault>) -> bool {
    matches!(
        result,
        Err(Fault::Stream {
            code: Code::MESSAGE_ERROR,
            ..
        })
    )
}

#[test]
fn a_request_needs_each_pseudo_header_once() {
    for name in [":method", ":scheme", ":path", ":authority"] {
        let missing = plain(&get(Some((name, &[])), &[]), LIMITS);
        assert!(is_malformed(missing), "{name} is missing");
        let value = GET.iter().find(|f| f.0 == name).unwrap().1;
        let twice = [(name, value), (name, value)];
        let twice = plain(&get(Some((name, &twice)), &[]), LIMITS);
        assert!(is_malformed(twice), "{name} is there twice");
    }
}

#[test]
fn pseudo_headers_come_first_and_are_known() {
    let late = block(&[
        (":method", "GET"),
        (":scheme", "https"),
        ("accept", "*/*"),
        (":authority", "a:80"),
        (":path", "/"),
    ]);
    assert!(is_malformed(plain(&late, LIMITS)));
    for unknown in [":status", ":protocol", ":foo", ":"] {
        let request = get(Some((":path", &[(":path", "/"), (unknown, "200")])), &[]);
        assert!(is_malformed(plain(&request, LIMITS)), "{unknown}");
    }
}

#[test]
fn values_of_request_pseudo_headers_are_checked() {
    let bad = [
        (":method", ""),
        (":method", "GE T"),
        (":scheme", ""),
        (":scheme", "1http"),
        (":path", ""),
        (":path", "no-slash"),
        (":path", "/a b"),
        (":path", "/a#fragment"),
        (":path", "/\0"),
        (":path", "*"),
        (":authority", ""),
        (":authority", "user@host"),
        (":authority", "host:notaport"),
        (":authority", "host:70000"),
        (":authority", "host/path"),
        (":authority", ":80"),
    ];
    for (name, value) in bad {
        let request = get(Some((name, &[(name, value)])), &[]);
        assert!(is_malformed(plain(&request, LIMITS)), "{name}: {value:?}");
    }
}

#[test]
fn options_may_ask_for_the_whole_server() {
    let fields = [(":method", "OPTIONS"), GET[1], GET[2], (":path", "*")];
    let (request, _) = plain(&block(&fields), LIMITS).expect("OPTIONS *");
    assert_eq!(request.uri().path(), "*");
}

#[test]
fn connection_specific_fields_are_malformed() {
    let bad = [
        ("connection", "close"),
        ("connection", "keep-alive"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "close"),
        ("transfer-encoding", "chunked"),
        ("upgrade", "websocket"),
        ("te", "gzip"),
        ("te", "trailers, deflate"),
    ];
    for field in bad {
        assert!(
            is_malformed(plain(&get(None, &[field]), LIMITS)),
            "{field:?}"
        );
        let response = block(&[(":status", "200"), field]);
        assert!(
            is_malformed(incoming::response(&response, LIMITS)),
            "{field:?}"
        );
        assert!(
            is_malformed(incoming::trailers(&block(&[field]), LIMITS)),
            "{field:?}"
        );
    }
    assert!(plain(&get(None, &[("te", "trailers")]), LIMITS).is_ok());
}

#[test]
fn names_are_lower_case_tokens_and_values_hold_no_control_characters() {
    let bad = [
        ("Accept", "x"),
        ("x-Custom", "x"),
        ("", "x"),
        ("a b", "x"),
        ("a:b", "x"),
        ("caf\u{e9}", "x"),
        ("x", "a\0b"),
        ("x", "a\rb"),
        ("x", "a\nb"),
        ("x", "\r\ninjected: 1"),
        ("x", "\u{7f}"),
    ];
    for field in bad {
        assert!(
            is_malformed(plain(&get(None, &[field]), LIMITS)),
            "{field:?}"
        );
        let response = block(&[(":status", "200"), field]);
        assert!(
            is_malformed(incoming::response(&response, LIMITS)),
            "{field:?}"
        );
        assert!(
            is_malformed(incoming::trailers(&block(&[field]), LIMITS)),
            "{field:?}"
        );
    }
}

#[test]
fn authority_and_host_must_agree() {
    let host = |value| plain(&get(None, &[("host", value)]), LIMITS);
    assert!(host("invoices.default:80").is_ok());
    assert!(
        host("INVOICES.default:80").is_ok(),
        "hosts compare without case"
    );
    assert!(is_malformed(host("invoices.default")));
    assert!(is_malformed(host("other:80")));
    let twice = [
        ("host", "invoices.default:80"),
        ("host", "invoices.default:80"),
    ];
    assert!(is_malformed(plain(&get(None, &twice), LIMITS)));

    let only_host = get(
        Some((":authority", &[])),
        &[("host", "invoices.default:80")],
    );
    let (request, _) = plain(&only_host, LIMITS).expect("Host stands in");
    assert_eq!(request.uri().host(), Some("invoices.default"));
}

#[test]
fn connect_carries_method_and_authority_only() {
    let (request, _) = plain(&block(&CONNECT), LIMITS).expect("the right form");
    assert_eq!(request.method(), http::Method::CONNECT);
    assert_eq!(request.uri().to_string(), "invoices.default:80");
    assert!(request.uri().scheme().is_none() && request.uri().path_and_query().is_none());

    let bad: [&[(&str, &str)]; 5] = [
        &[CONNECT[0], CONNECT[1], (":scheme", "https")],
        &[CONNECT[0], CONNECT[1], (":path", "/")],
        &[CONNECT[0], CONNECT[1], (":scheme", "https"), (":path", "/")],
        &[CONNECT[0]],
        &[CONNECT[0], CONNECT[1], (":protocol", "websocket")],
    ];
    for fields in bad {
        assert!(is_malformed(plain(&block(fields), LIMITS)), "{fields:?}");
    }
    for authority in [
        "invoices.default",
        "invoices.default:0",
        "invoices.default:",
    ] {
        let request = block(&[CONNECT[0], (":authority", authority)]);
        assert!(is_malformed(plain(&request, LIMITS)), "{authority}");
    }
}

#[test]
fn content_length_is_one_number() {
    let length = |value| plain(&get(None, &[("content-length", value)]), LIMITS);
    assert_eq!(length("42").map(|(_, l)| l), Ok(Some(42)));
    for bad in [
        "",
        "+5",
        "0x5",
        "5,6",
        "42, 42",
        "-1",
        "5 ",
        "99999999999999999999",
    ] {
        assert!(is_malformed(length(bad)), "{bad:?}");
    }
    let twice = [("content-length", "5"), ("content-length", "5")];
    assert!(is_malformed(plain(&get(None, &twice), LIMITS)));
}

#[test]
fn a_response_has_one_status_of_three_digits() {
    for bad in ["", "20", "2000", "abc", "099", "101"] {
        let response = block(&[(":status", bad)]);
        assert!(
            is_malformed(incoming::response(&response, LIMITS)),
            "{bad:?}"
        );
    }
    let cases: [&[(&str, &str)]; 5] = [
        &[],
        &[("server", "x")],
        &[(":status", "200"), (":status", "200")],
        &[("server", "x"), (":status", "200")],
        &[(":status", "200"), (":method", "GET")],
    ];
    for fields in cases {
        assert!(
            is_malformed(incoming::response(&block(fields), LIMITS)),
            "{fields:?}"
        );
    }
    for good in ["100", "103", "200", "404", "599", "999"] {
        let (response, _) = incoming::response(&block(&[(":status", good)]), LIMITS).unwrap();
        assert_eq!(response.status().as_str(), good);
    }
}

#[test]
fn trailers_hold_no_pseudo_headers() {
    for name in [":status", ":path", ":x"] {
        assert!(is_malformed(incoming::trailers(
            &block(&[(name, "1")]),
            LIMITS
        )));
    }
    let trailers = incoming::trailers(&block(&[("grpc-status", "0")]), LIMITS).unwrap();
    assert_eq!(trailers["grpc-status"], "0");
}

#[test]
fn split_cookies_are_joined() {
    let request = get(None, &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]);
    let (request, _) = plain(&request, LIMITS).unwrap();
    let cookies: Vec<_> = request.headers().get_all(header::COOKIE).iter().collect();
    assert_eq!(cookies, ["a=1; b=2"]);
}

#[test]
fn a_request_keeps_path_query_and_order_as_sent() {
    let path = "/a%2Fb/../c;x=1?q=%00&q=2&&";
    let request = get(
        Some((":path", &[(":path", path)])),
        &[("x-many", "1"), ("x-many", "2"), ("te", "trailers")],
    );
    let (request, length) = plain(&request, LIMITS).unwrap();
    assert_eq!(request.uri().path_and_query().unwrap().as_str(), path);
    assert_eq!(request.uri().scheme_str(), Some("https"));
    let many: Vec<_> = request.headers().get_all("x-many").iter().collect();
    assert_eq!(many, ["1", "2"]);
    assert_eq!((request.version(), length), (http::Version::HTTP_3, None));
}

#[test]
fn a_sensitive_value_stays_sensitive_on_its_way() {
    let mut fields = Vec::new();
    encode::prefix(&mut fields);
    encode::field(":status", b"200", false, &mut fields);
    for (name, sensitive) in [("authorization", true), ("x-key", true), ("x-open", false)] {
        encode::field(name, b"secret", sensitive, &mut fields);
    }
    let (response, _) = incoming::response(&Bytes::from(fields), LIMITS).unwrap();
    for (name, sensitive) in [("authorization", true), ("x-key", true), ("x-open", false)] {
        assert_eq!(response.headers()[name].is_sensitive(), sensitive, "{name}");
    }
}

#[test]
fn sections_beyond_the_limits_are_too_large() {
    let fields: Vec<_> = (0..200).map(|_| ("x", "y")).collect();
    let many = get(None, &fields);
    assert_eq!(plain(&many, LIMITS).unwrap_err(), Fault::TooLarge);
    let long = "v".repeat(70_000);
    let long = get(None, &[("x", &long)]);
    assert_eq!(plain(&long, LIMITS).unwrap_err(), Fault::TooLarge);
}
