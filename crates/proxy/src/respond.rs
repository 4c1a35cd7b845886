//! Every answer that weft makes by itself: its status, its `proxy-status` (RFC 9209) and its sentence.
//!
//! One [`Refusal`] is the single source of what the caller reads, of the access log's reason and of the
//! label in the metrics, so that the three never tell different stories.

use std::fmt::Write;
use std::sync::Arc;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use weft_env::mutants::{Mutant, broken};

/// The field's name.
pub(crate) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
/// Longest part of another node's `proxy-status` that goes into the access log.
const SHOWN_STATUS: usize = 400;

/// What kind of fact made weft answer by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fact {
    /// The request breaks HTTP's rules, or ours on paths.
    BadRequest,
    /// The request's head is larger than the limits.
    HeadTooLarge,
    /// The request has a transfer coding that is not understood.
    UnknownCoding,
    /// The authority names no service of the mesh.
    NoSuchService,
    /// The service has no such port, or one of the other protocol.
    NoSuchPort,
    /// Routes exist and none matches.
    NoRoute,
    /// The matching rule has nothing to send to.
    NoBackend,
    /// Policy does not allow it.
    Denied,
    /// The service has no live endpoint, or none that can be tried now.
    NoEndpoint,
    /// No connection to any endpoint.
    ConnectFailed,
    /// No endpoint answered the attempt to connect.
    ConnectTimeout,
    /// The endpoint did not prove to be who the service is.
    PeerUnverified,
    /// The endpoint refused this sidecar's certificate.
    PeerRefusedUs,
    /// The connection or stream broke before there was an answer.
    UpstreamReset,
    /// The whole transaction took longer than it may.
    Timeout,
    /// The own application does not accept connections.
    AppRefused,
    /// The own application does not answer connection attempts.
    AppConnectTimeout,
    /// The own application broke off before it answered.
    AppReset,
    /// The own application answered with something that is not HTTP.
    AppMalformed,
    /// The request is for another node than this one.
    Misdirected,
    /// The request goes round in a circle.
    Loop,
    /// There is no snapshot yet: nothing can be decided.
    NotReady,
    /// The sidecar ends before there is an answer.
    Stopping,
    /// The request's head did not come to its end in time.
    HeadTimeout,
}

impl Fact {
    /// HTTP status (proxy-semantics §3).
    fn status(self) -> StatusCode {
        match self {
            Self::BadRequest => StatusCode::BAD_REQUEST,
            Self::HeadTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::NoSuchService | Self::NoSuchPort | Self::NoRoute => StatusCode::NOT_FOUND,
            Self::NoBackend => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Timeout => StatusCode::GATEWAY_TIMEOUT,
            Self::AppMalformed => StatusCode::BAD_GATEWAY,
            Self::Misdirected => StatusCode::MISDIRECTED_REQUEST,
            Self::Loop => StatusCode::LOOP_DETECTED,
            Self::NoEndpoint
            | Self::ConnectFailed
            | Self::ConnectTimeout
            | Self::PeerUnverified
            | Self::PeerRefusedUs
            | Self::UpstreamReset
            | Self::AppRefused
            | Self::AppConnectTimeout
            | Self::AppReset
            | Self::NotReady
            | Self::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// As [`Fact::status`], for a CONNECT (RFC 9114 §4.4: the peer could not be connected to).
    fn tunnel_status(self) -> StatusCode {
        match self {
            Self::AppRefused | Self::ConnectFailed => StatusCode::BAD_GATEWAY,
            Self::PeerUnverified | Self::PeerRefusedUs => StatusCode::BAD_GATEWAY,
            Self::AppConnectTimeout | Self::ConnectTimeout => StatusCode::GATEWAY_TIMEOUT,
            other => other.status(),
        }
    }

    /// Error type of RFC 9209 §2.3.
    fn error(self) -> &'static str {
        match self {
            Self::BadRequest | Self::HeadTooLarge | Self::UnknownCoding | Self::HeadTimeout => {
                "http_request_error"
            }
            Self::NoSuchService | Self::NoSuchPort | Self::NoRoute | Self::Misdirected => {
                "destination_not_found"
            }
            Self::NoBackend => "proxy_configuration_error",
            Self::Denied => "http_request_denied",
            Self::NoEndpoint => "destination_unavailable",
            Self::ConnectFailed | Self::AppRefused => "connection_refused",
            Self::PeerUnverified => "tls_certificate_error",
            Self::PeerRefusedUs => "tls_alert_received",
            Self::UpstreamReset | Self::AppReset | Self::Stopping => "connection_terminated",
            Self::Timeout => "http_response_timeout",
            Self::AppConnectTimeout | Self::ConnectTimeout => "connection_timeout",
            Self::AppMalformed => "http_protocol_error",
            Self::Loop => "proxy_loop_detected",
            Self::NotReady => "proxy_internal_error",
        }
    }

    /// The label in `weft_refusals_total`.
    pub(crate) fn reason(self) -> &'static str {
        match self {
            Self::BadRequest => "bad_request",
            Self::HeadTooLarge => "head_too_large",
            Self::UnknownCoding => "unknown_coding",
            Self::NoSuchService => "no_such_service",
            Self::NoSuchPort => "no_such_port",
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::Denied => "policy_denied",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::PeerUnverified => "peer_unverified",
            Self::PeerRefusedUs => "peer_refused_us",
            Self::UpstreamReset => "upstream_reset",
            Self::Timeout => "timeout",
            Self::AppRefused => "app_refused",
            Self::AppConnectTimeout => "app_connect_timeout",
            Self::AppReset => "app_reset",
            Self::AppMalformed => "app_malformed",
            Self::Misdirected => "misdirected",
            Self::Loop => "loop",
            Self::NotReady => "not_ready",
            Self::Stopping => "stopping",
            Self::HeadTimeout => "head_timeout",
        }
    }
}

/// A decision not to pass a request on, or not to pass on its answer.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    pub(crate) fact: Fact,
    /// One sentence: what and why, in a user's words.
    pub(crate) details: String,
    /// The rule that decided, where one did.
    pub(crate) rule: Option<Arc<str>>,
}

impl Refusal {
    pub(crate) fn new(fact: Fact, details: impl Into<String>) -> Self {
        Self {
            fact,
            details: details.into(),
            rule: None,
        }
    }

    pub(crate) fn by(mut self, rule: &Arc<str>) -> Self {
        self.rule = Some(Arc::clone(rule));
        self
    }
}

/// Who answers, about which request, under which revision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Speaker<'a> {
    /// `<service>.<namespace>/<side>`.
    pub(crate) node: &'a str,
    /// `outbound` or `inbound`.
    pub(crate) side: &'static str,
    /// Revision that the request followed.
    pub(crate) revision: u64,
    /// Id that both sides log.
    pub(crate) request_id: &'a str,
    /// Whether the request was a CONNECT.
    pub(crate) tunnel: bool,
}

impl Speaker<'_> {
    /// The status that a refusal has on this request.
    pub(crate) fn status(&self, refusal: &Refusal) -> StatusCode {
        if self.tunnel {
            refusal.fact.tunnel_status()
        } else {
            refusal.fact.status()
        }
    }

    /// The head and text of the answer.
    pub(crate) fn answer(&self, refusal: &Refusal) -> (Response<()>, String) {
        let mut response = Response::new(());
        *response.status_mut() = self.status(refusal);
        let headers = response.headers_mut();
        if !(refusal.fact == Fact::ConnectTimeout && broken(Mutant::HidesTheReason)) {
            headers.insert(PROXY_STATUS, self.proxy_status(refusal));
        }
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("text/plain; charset=utf-8"),
        );
        if let Ok(id) = HeaderValue::try_from(self.request_id) {
            headers.insert(crate::request_id::HEADER, id);
        }
        if matches!(
            refusal.fact,
            Fact::BadRequest | Fact::HeadTooLarge | Fact::UnknownCoding | Fact::HeadTimeout
        ) {
            // Never reuse a connection after a framing error (RFC 9112 §11.2).
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        let text = format!("{}\n", refusal.details);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(text.len()));
        (response, text)
    }

    /// One member of the list (RFC 9209 §2).
    fn proxy_status(&self, refusal: &Refusal) -> HeaderValue {
        let mut out = String::with_capacity(160);
        let _ = write!(
            out,
            "{}; error={}; details=",
            self.node,
            refusal.fact.error()
        );
        quote(&mut out, &refusal.details);
        let _ = write!(out, "; side={}", self.side);
        if let Some(rule) = &refusal.rule {
            out.push_str("; rule=");
            quote(&mut out, rule);
        }
        let _ = write!(out, "; revision={}; request-id=", self.revision);
        quote(&mut out, self.request_id);
        HeaderValue::try_from(out).expect("quote leaves visible ASCII only")
    }

    /// Adds this node to an answer that another hop made (RFC 9209 §2: in the order passed). Only when
    /// there is a `proxy-status` already: an origin's answer stays as it is.
    pub(crate) fn append_received(&self, headers: &mut HeaderMap, status: StatusCode) {
        if !headers.contains_key(PROXY_STATUS) {
            return;
        }
        let mut out = format!(
            "{}; received-status={}; side={}; revision={}; request-id=",
            self.node,
            status.as_u16(),
            self.side,
            self.revision
        );
        quote(&mut out, self.request_id);
        if let Ok(value) = HeaderValue::try_from(out) {
            headers.append(PROXY_STATUS, value);
        }
    }
}

/// What another node said, for the log.
pub(crate) fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(SHOWN_STATUS)]).into_owned()
}

/// A string of structured fields (RFC 8941 §3.3.3): printable ASCII, `"` and `\` escaped. Other
/// characters become `?`.
pub(crate) fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            ' '..='~' => out.push(c),
            _ => out.push('?'),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEAKER: Speaker<'_> = Speaker {
        node: "invoices.default/inbound",
        side: "inbound",
        revision: 12,
        request_id: "r-1",
        tunnel: false,
    };

    #[test]
    fn rfc9209_a_refusal_names_node_error_details_side_rule_revision_and_request() {
        let refusal = Refusal::new(Fact::Denied, "no policy lets spiffe://x call \"/a\"")
            .by(&Arc::from("default-deny"));
        let (response, text) = SPEAKER.answer(&refusal);
        assert_eq!(response.status(), 403);
        assert_eq!(
            response.headers()[PROXY_STATUS],
            "invoices.default/inbound; error=http_request_denied; details=\"no policy lets spiffe://x call \\\"/a\\\"\"; side=inbound; rule=\"default-deny\"; revision=12; request-id=\"r-1\""
        );
        assert_eq!(text, "no policy lets spiffe://x call \"/a\"\n");
        assert_eq!(response.headers()[crate::request_id::HEADER], "r-1");
    }

    #[test]
    fn details_are_made_safe_for_a_header() {
        let refusal = Refusal::new(Fact::ConnectFailed, "naïve\r\nx: y \\");
        let (response, _) = SPEAKER.answer(&refusal);
        let value = response.headers()[PROXY_STATUS].to_str().unwrap();
        assert!(value.contains("details=\"na?ve??x: y \\\\\""), "{value}");
    }

    #[test]
    fn both_proxies_are_members_of_the_list_in_the_order_passed() {
        let refusal = Refusal::new(Fact::Denied, "no");
        let (mut response, _) = SPEAKER.answer(&refusal);
        let outbound = Speaker {
            node: "orders.default/outbound",
            side: "outbound",
            ..SPEAKER
        };
        outbound.append_received(response.headers_mut(), StatusCode::FORBIDDEN);
        let all: Vec<&str> = response
            .headers()
            .get_all(PROXY_STATUS)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        assert_eq!(all.len(), 2);
        assert!(all[0].starts_with("invoices.default/inbound; error="));
        assert!(all[1].starts_with("orders.default/outbound; received-status=403"));

        let mut origin = HeaderMap::new();
        outbound.append_received(&mut origin, StatusCode::NOT_FOUND);
        assert!(origin.is_empty(), "an origin's own answer is left alone");
    }

    #[test]
    fn statuses_follow_the_table_of_proxy_semantics_3() {
        for (fact, http, tunnel) in [
            (Fact::NoRoute, 404, 404),
            (Fact::Denied, 403, 403),
            (Fact::NoEndpoint, 503, 503),
            (Fact::ConnectFailed, 503, 502),
            (Fact::AppRefused, 503, 502),
            (Fact::AppConnectTimeout, 503, 504),
            (Fact::Timeout, 504, 504),
            (Fact::NoBackend, 500, 500),
            (Fact::Loop, 508, 508),
            (Fact::Misdirected, 421, 421),
        ] {
            let refusal = Refusal::new(fact, "x");
            assert_eq!(SPEAKER.status(&refusal).as_u16(), http, "{fact:?}");
            let speaker = Speaker {
                tunnel: true,
                ..SPEAKER
            };
            assert_eq!(speaker.status(&refusal).as_u16(), tunnel, "{fact:?}");
        }
    }
}
