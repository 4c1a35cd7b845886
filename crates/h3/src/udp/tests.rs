//! RFC 9298 §2 and §3: which templates and targets are taken.

use http::{Method, Request};
use proptest::prelude::*;

use super::*;
use crate::Protocol;

fn template(text: &str) -> UdpTemplate {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn well_known() -> UdpTemplate {
    UdpTemplate::well_known("proxy.example:443".parse().unwrap())
}

fn asked(path: &str) -> Request<()> {
    Request::builder()
        .method(Method::CONNECT)
        .uri(format!("https://proxy.example{path}"))
        .extension(Protocol::CONNECT_UDP)
        .body(())
        .unwrap()
}

/// The examples of RFC 9298 §2, and expansions by RFC 6570 §3.2.
#[test]
fn rfc9298_templates_expand_and_are_read_back() {
    let cases = [
        (
            "https://example.org/.well-known/masque/udp/{target_host}/{target_port}/",
            "https://example.org/.well-known/masque/udp/192.0.2.6/443/",
        ),
        (
            "https://proxy.example.org:4443/masque?h={target_host}&p={target_port}",
            "https://proxy.example.org:4443/masque?h=192.0.2.6&p=443",
        ),
        (
            "https://proxy.example.org:4443/masque{?target_host,target_port}",
            "https://proxy.example.org:4443/masque?target_host=192.0.2.6&target_port=443",
        ),
        (
            "https://a/{target_port,target_host}",
            "https://a/443,192.0.2.6",
        ),
        (
            "https://a/x{?who,target_port,why}{&target_host}",
            "https://a/x?target_port=443&target_host=192.0.2.6",
        ),
    ];
    let target = UdpTarget::new("192.0.2.6", 443).unwrap();
    for (text, uri) in cases {
        let template = template(text);
        let request = template.request(&target);
        assert_eq!(request.uri(), uri, "{text}");
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.headers()["capsule-protocol"], "?1");
        assert_eq!(template.target(&request), Ok(target.clone()), "{text}");
    }
}

#[test]
fn the_default_template_is_rfc9298s() {
    let text = "https://proxy.example:443/.well-known/masque/udp/{target_host}/{target_port}/";
    assert_eq!(well_known(), template(text));
}

#[test]
fn colons_of_ipv6_addresses_are_percent_encoded() {
    let target = UdpTarget::new("2001:db8::42", 443).unwrap();
    let request = well_known().request(&target);
    let path = "/.well-known/masque/udp/2001%3Adb8%3A%3A42/443/";
    assert_eq!(request.uri().path(), path);
    assert_eq!(well_known().target(&request), Ok(target.clone()));
    let lower = asked(&path.replace("%3A", "%3a"));
    assert_eq!(well_known().target(&lower), Ok(target));
}

#[test]
fn templates_that_break_rfc9298_2_are_rejected() {
    let long = format!(
        "https://a/{}{{target_host}}/{{target_port}}",
        "x".repeat(4096)
    );
    for (what, text) in [
        ("no target_port", "https://a/{target_host}/"),
        ("no target_host", "https://a/{target_port}/"),
        ("no variable", "https://a/"),
        ("no scheme", "//a/{target_host}/{target_port}/"),
        ("empty scheme", "://a/{target_host}/{target_port}/"),
        ("relative", "/{target_host}/{target_port}/"),
        ("no authority", "https:///{target_host}/{target_port}/"),
        ("no path", "https://a?h={target_host}&p={target_port}"),
        (
            "variable in the authority",
            "https://{target_host}/{target_port}/",
        ),
        (
            "user information",
            "https://me@a/{target_host}/{target_port}/",
        ),
        ("not ASCII", "https://a/ü/{target_host}/{target_port}/"),
        ("a space", "https://a/ /{target_host}/{target_port}/"),
        (
            "reserved expansion",
            "https://a/{+target_host}/{target_port}/",
        ),
        (
            "fragment expansion",
            "https://a/{target_host}/{#target_port}",
        ),
        ("label expansion", "https://a/{target_host}{.target_port}"),
        ("path expansion", "https://a{/target_host,target_port}"),
        (
            "path-style expansion",
            "https://a/x{;target_host,target_port}",
        ),
        ("fragment", "https://a/{target_host}/{target_port}/#x"),
        (
            "level 4, prefix",
            "https://a/{target_host:3}/{target_port}/",
        ),
        (
            "level 4, explode",
            "https://a/{target_host*}/{target_port}/",
        ),
        (
            "a quote, which fits into a path and not into a query",
            "https://a/?h={target_host}\"p={target_port}",
        ),
        ("open brace", "https://a/{target_host}/{target_port"),
        ("close brace", "https://a/target_host}/{target_port}"),
        (
            "empty expression",
            "https://a/{}/{target_host}/{target_port}",
        ),
        (
            "used twice",
            "https://a/{target_host}/{target_host}/{target_port}",
        ),
        ("ambiguous", "https://a/{target_host}-{target_port}/"),
        ("adjacent", "https://a/{target_host}{target_port}/"),
        ("too long", long.as_str()),
    ] {
        assert!(text.parse::<UdpTemplate>().is_err(), "{what}: {text}");
    }
}

#[test]
fn targets_that_are_none_are_refused() {
    let at = |host: &str, port: &str| format!("/.well-known/masque/udp/{host}/{port}/");
    for (what, path) in [
        ("port 0", at("a", "0")),
        ("port 65536", at("a", "65536")),
        ("no port", at("a", "")),
        ("signed port", at("a", "%2B53")),
        ("port name", at("a", "dns")),
        ("empty host", at("", "53")),
        ("brackets", at("%5B::1%5D", "53")),
        ("zone", at("fe80%3A%3A1%25eth0", "53")),
        ("not a host name", at("a%20b", "53")),
        ("a slash in the host", at("a%2Fb", "53")),
        ("NUL", at("a%00", "53")),
        ("not ASCII", at("%C3%BC", "53")),
        ("broken encoding", at("a%4", "53")),
        ("broken encoding at the end", at("a", "53%")),
        ("long name", at(&"a".repeat(256), "53")),
        ("other path", "/udp/a/53/".to_owned()),
        ("no last slash", "/.well-known/masque/udp/a/53".to_owned()),
        ("more behind it", at("a", "53") + "x"),
        ("a query behind it", at("a", "53") + "?x=y"),
    ] {
        let got = well_known().target(&asked(&path));
        assert!(got.is_err(), "{what}: {path} gave {got:?}");
    }
    assert!(UdpTarget::new("", 53).is_err() && UdpTarget::new("a", 0).is_err());
}

#[test]
fn a_request_for_another_protocol_or_with_content_is_refused() {
    let path = "/.well-known/masque/udp/a/53/";
    assert!(well_known().target(&asked(path)).is_ok());
    let mut other = asked(path);
    other.extensions_mut().insert(Protocol::WEBSOCKET);
    assert!(well_known().target(&other).is_err());
    for name in ["content-length", "content-type", "transfer-encoding"] {
        let mut request = asked(path);
        request.headers_mut().insert(name, "0".parse().unwrap());
        assert!(well_known().target(&request).is_err(), "{name}");
    }
}

proptest! {
    #[test]
    fn any_target_survives_any_template(
        name in "[a-z0-9._-]{1,60}", v6 in any::<u128>(), named in any::<bool>(), port in 1..=u16::MAX, which in 0usize..3,
    ) {
        let host = if named { name } else { std::net::Ipv6Addr::from(v6).to_string() };
        let target = UdpTarget::new(&host, port).unwrap();
        let text = [
            "https://a/.well-known/masque/udp/{target_host}/{target_port}/",
            "https://a/m?p={target_port}&h={target_host}",
            "https://a/m{?target_host,target_port}",
        ][which];
        let template = template(text);
        prop_assert_eq!(template.target(&template.request(&target)), Ok(target));
    }
}
