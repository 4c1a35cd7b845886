//! The URI template that says where a CONNECT-UDP request goes (RFC 9298 §2), of RFC 6570's levels 1 to 3.

use std::str::FromStr;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Uri};

use super::{InvalidUdp, UdpTarget, describes_content};
use crate::Protocol;

/// Longest template that is taken.
const MAX_LEN: usize = 4096;
/// RFC 9297 §3.4: the stream carries capsules.
pub(super) const CAPSULE_PROTOCOL: &str = "capsule-protocol";

/// A URI template with the variables `target_host` and `target_port`: a client builds its request's URI with
/// it, a server takes the target out of one.
///
/// ```
/// use weft_h3::{UdpTarget, UdpTemplate};
///
/// let template: UdpTemplate = "https://proxy.example/udp{?target_host,target_port}".parse()?;
/// let request = template.request(&UdpTarget::new("2001:db8::1", 53)?);
/// assert_eq!(
///     request.uri(),
///     "https://proxy.example/udp?target_host=2001%3Adb8%3A%3A1&target_port=53"
/// );
/// assert_eq!(template.target(&request)?.to_string(), "[2001:db8::1]:53");
/// # Ok::<_, weft_h3::InvalidUdp>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UdpTemplate {
    scheme: Scheme,
    authority: Authority,
    /// Path and query; the two variables stand between the three.
    literals: [String; 3],
    host_first: bool,
}

impl UdpTemplate {
    /// The default template: `https://<authority>/.well-known/masque/udp/{target_host}/{target_port}/`
    /// (RFC 9298 §2).
    pub fn well_known(authority: Authority) -> Self {
        Self {
            scheme: Scheme::HTTPS,
            authority,
            literals: ["/.well-known/masque/udp/", "/", "/"].map(str::to_owned),
            host_first: true,
        }
    }

    /// The request that asks for packets to `target` (RFC 9298 §3.4).
    pub fn request(&self, target: &UdpTarget) -> Request<()> {
        let host = percent_encode(&target.host.to_string());
        let port = target.port.to_string();
        let values = if self.host_first {
            [host, port]
        } else {
            [port, host]
        };
        let [start, middle, end] = &self.literals;
        let path = [start, &values[0], middle, &values[1], end].map(String::as_str);
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = PathAndQuery::try_from(path.concat()).ok();
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
        request.extensions_mut().insert(Protocol::CONNECT_UDP);
        // RFC 9297 §3.4.
        let yes = HeaderValue::from_static("?1");
        request.headers_mut().insert(CAPSULE_PROTOCOL, yes);
        request
    }

    /// The target that a request names, by its path and query alone: which authority is ours, and which
    /// targets are allowed, is for the caller to check.
    ///
    /// # Errors
    /// When it is no CONNECT-UDP request, its path does not fit the template, or it names no valid target:
    /// answer 400 (another `:protocol`: 501).
    pub fn target(&self, request: &Request<()>) -> Result<UdpTarget, InvalidUdp> {
        const ELSEWHERE: InvalidUdp = InvalidUdp {
            what: "path",
            rule: "it does not fit the URI template",
        };
        let what = "request";
        if request.extensions().get() != Some(&Protocol::CONNECT_UDP) {
            let rule = "its protocol is not connect-udp";
            return Err(InvalidUdp { what, rule });
        }
        if describes_content(request.headers()) {
            let rule = "it has content-length or content-type (RFC 9297 §3.2)";
            return Err(InvalidUdp { what, rule });
        }
        let path = request.uri().path_and_query().map_or("", |p| p.as_str());
        let [start, middle, end] = &self.literals;
        let rest = path.strip_prefix(start.as_str()).ok_or(ELSEWHERE)?;
        let (first, rest) = value(rest);
        let rest = rest.strip_prefix(middle.as_str()).ok_or(ELSEWHERE)?;
        let (second, rest) = value(rest);
        if rest != end {
            return Err(ELSEWHERE);
        }
        if self.host_first {
            UdpTarget::decode(first, second)
        } else {
            UdpTarget::decode(second, first)
        }
    }
}

impl FromStr for UdpTemplate {
    type Err = InvalidUdp;

    fn from_str(text: &str) -> Result<Self, InvalidUdp> {
        if text.len() > MAX_LEN {
            return Err(invalid("it is longer than 4096 bytes"));
        }
        // RFC 9298 §2: 0x21 to 0x7e only.
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(invalid(
                "it holds something other than visible ASCII characters",
            ));
        }
        let (scheme, rest) = text.split_once("://").ok_or(invalid("it has no scheme"))?;
        let scheme = Scheme::from_str(scheme).ok().filter(|_| !scheme.is_empty());
        let path = rest.find('/').ok_or(invalid("it has no path"))?;
        let (authority, path) = rest.split_at(path);
        if authority.contains(['{', '}', '@', '?', '#']) {
            return Err(invalid("variables stand in the path and the query only"));
        }
        let mut expanded = Expanded::default();
        expanded.path(path)?;
        let (literals, host_first) = expanded.finish()?;
        Ok(Self {
            scheme: scheme.ok_or(invalid("its scheme is not one"))?,
            authority: Authority::from_str(authority)
                .map_err(|_| invalid("it has no valid authority"))?,
            literals,
            host_first,
        })
    }
}

/// A template taken apart: literals, and behind each but the last the variable that follows it.
#[derive(Default)]
struct Expanded {
    done: Vec<String>,
    open: String,
    host: Option<usize>,
    port: Option<usize>,
}

impl Expanded {
    fn path(&mut self, mut rest: &str) -> Result<(), InvalidUdp> {
        while let Some(brace) = rest.find(['{', '}']) {
            self.open.push_str(&rest[..brace]);
            let expression = rest[brace..].strip_prefix('{');
            let closed = expression.and_then(|e| e.split_once('}'));
            let (expression, tail) = closed.ok_or(invalid("a brace has no partner"))?;
            self.expression(expression)?;
            rest = tail;
        }
        self.open.push_str(rest);
        Ok(())
    }

    /// RFC 6570 §3.2: simple expansion, and the two of the query. Variables other than ours have no value, so
    /// nothing of them appears.
    fn expression(&mut self, expression: &str) -> Result<(), InvalidUdp> {
        let (first, between, named, names) = match expression.split_at_checked(1) {
            Some(("?", names)) => ("?", "&", true, names),
            Some(("&", names)) => ("&", "&", true, names),
            Some(("+" | "#" | "." | "/" | ";", _)) => {
                return Err(invalid("of the operators only ? and & may be used"));
            }
            _ => ("", ",", false, expression),
        };
        let mut separator = first;
        for name in names.split(',') {
            // RFC 6570 §2.3; modifiers (§2.4) are of level 4.
            let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_.%".contains(&b);
            if name.is_empty() || !name.bytes().all(is_name) {
                return Err(invalid("a variable's name is not one"));
            }
            if !matches!(name, "target_host" | "target_port") {
                continue;
            }
            self.open.push_str(separator);
            separator = between;
            if named {
                self.open.push_str(name);
                self.open.push('=');
            }
            self.variable(name)?;
        }
        Ok(())
    }

    fn variable(&mut self, name: &str) -> Result<(), InvalidUdp> {
        let slot = match name {
            "target_host" => &mut self.host,
            _ => &mut self.port,
        };
        if slot.replace(self.done.len()).is_some() {
            return Err(invalid("a variable is used twice"));
        }
        self.done.push(std::mem::take(&mut self.open));
        Ok(())
    }

    fn finish(self) -> Result<([String; 3], bool), InvalidUdp> {
        let (Some(host), Some(port)) = (self.host, self.port) else {
            return Err(invalid("it lacks target_host or target_port"));
        };
        let mut literals = self.done;
        literals.push(self.open);
        for (place, literal) in literals.iter().enumerate() {
            // RFC 3986 §3.3, §3.4.
            if !literal
                .bytes()
                .all(|b| is_value(b) || b"/?:@!$&'()*+,;=".contains(&b))
            {
                return Err(invalid("its path holds a forbidden character"));
            }
            // Else nobody could tell where a value ends.
            let last = place == 2 && literal.is_empty();
            if place > 0 && !last && literal.bytes().next().is_none_or(is_value) {
                return Err(invalid("a variable runs into what follows it"));
            }
        }
        // Any value is of the same characters as these: what is built later will be a path, too.
        if PathAndQuery::try_from(literals.join("1")).is_err() {
            return Err(invalid("its path is not one"));
        }
        let literals = literals
            .try_into()
            .map_err(|_| invalid("it lacks target_host or target_port"))?;
        Ok((literals, host < port))
    }
}

/// Splits a variable's value from what follows it.
fn value(text: &str) -> (&str, &str) {
    let end = text.bytes().position(|b| !is_value(b));
    text.split_at(end.unwrap_or(text.len()))
}

/// What simple and query expansion leave of a value (RFC 6570 §3.2.1): unreserved characters, and the rest
/// percent-encoded.
fn is_value(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte)
}

fn percent_encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if is_value(byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

const fn invalid(rule: &'static str) -> InvalidUdp {
    InvalidUdp {
        what: "URI template",
        rule,
    }
}
