//! The rules of the Gateway API that a type cannot say.

use std::collections::BTreeSet;

use crate::error::Checker;
use crate::http_route::{
    FilterKind, HeaderModifier, HttpRouteFilter, HttpRouteMatch, HttpRouteRetry, HttpRouteRule,
    HttpRouteSpec, HttpRouteTimeouts, NamedMatch, PathMatch, PathMatchKind, ValueMatchKind,
};
use crate::name::shorten;

const MAX_PARENTS: usize = 32;
const MAX_HOSTNAMES: usize = 16;
const MAX_RULES: usize = 16;
const MAX_MATCHES_PER_RULE: usize = 64;
const MAX_MATCHES: usize = 128;
const MAX_BACKENDS: usize = 16;
const MAX_FILTERS: usize = 16;
/// Of a match, and of each list of a header modifier.
const MAX_HEADERS: usize = 16;
const MAX_PATH: usize = 1024;
const MAX_HEADER_NAME: usize = 256;
const MAX_VALUE: usize = 4096;
/// Not a limit of the Gateway API. More attempts than this help nobody and multiply the load.
const MAX_ATTEMPTS: u32 = 100;

/// Headers that frame or route the message: a filter may not touch them.
const RESERVED_HEADERS: [&str; 10] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
];

impl HttpRouteSpec {
    pub(crate) fn check(&self, c: &mut Checker) {
        if self.parent_refs.is_empty() {
            c.problem_at(
                "parentRefs",
                "is empty: name the service that the route is for",
            );
        }
        c.at_most("parentRefs", &self.parent_refs, MAX_PARENTS);
        c.each("parentRefs", &self.parent_refs, |c, parent| parent.check(c));
        c.at_most("hostnames", &self.hostnames, MAX_HOSTNAMES);
        if self.rules.is_empty() {
            c.problem_at(
                "rules",
                "is empty: leave it out for one rule that matches everything",
            );
        }
        c.at_most("rules", &self.rules, MAX_RULES);
        c.each("rules", &self.rules, |c, rule| rule.check(c));
        let matches: usize = self.rules.iter().map(|rule| rule.matches.len()).sum();
        if matches > MAX_MATCHES {
            c.problem_at(
                "rules",
                format!("have {matches} matches together, at most {MAX_MATCHES} are allowed"),
            );
        }
        let mut names = BTreeSet::new();
        c.each("rules", &self.rules, |c, rule| {
            if let Some(name) = &rule.name
                && !names.insert(name.as_str())
            {
                c.problem_at(
                    "name",
                    format!("'{name}' is the name of another rule already"),
                );
            }
        });
    }
}

impl HttpRouteRule {
    fn check(&self, c: &mut Checker) {
        if let Some(name) = &self.name {
            c.require("name", crate::name::check_resource_name(name));
        }
        c.at_most("matches", &self.matches, MAX_MATCHES_PER_RULE);
        c.each("matches", &self.matches, |c, m| m.check(c));
        c.at_most("filters", &self.filters, MAX_FILTERS);
        let mut kinds = Vec::new();
        c.each("filters", &self.filters, |c, filter| {
            if kinds.contains(&filter.kind) {
                c.problem("repeats a filter: each kind may be used once in a rule");
            }
            kinds.push(filter.kind);
            filter.check(c);
        });
        if let Some(timeouts) = &self.timeouts {
            c.field("timeouts", |c| timeouts.check(c));
        }
        if let Some(retry) = &self.retry {
            c.field("retry", |c| retry.check(c));
        }
        c.at_most("backendRefs", &self.backend_refs, MAX_BACKENDS);
        c.each("backendRefs", &self.backend_refs, |c, backend| {
            backend.check(c)
        });
    }
}

impl HttpRouteMatch {
    fn check(&self, c: &mut Checker) {
        if let Some(path) = &self.path {
            c.field("path", |c| path.check(c));
        }
        c.at_most("headers", &self.headers, MAX_HEADERS);
        c.each("headers", &self.headers, |c, header| {
            if !is_header_name(&header.name) {
                c.problem_at(
                    "name",
                    format!("'{}' is not the name of a header", shorten(&header.name)),
                );
            }
            header.check_value(c);
        });
        c.at_most("queryParams", &self.query_params, MAX_HEADERS);
        c.each("queryParams", &self.query_params, |c, param| {
            if param.name.is_empty() || param.name.len() > MAX_HEADER_NAME {
                c.problem_at("name", "is empty or over 256 characters");
            }
            param.check_value(c);
        });
    }
}

impl NamedMatch {
    fn check_value(&self, c: &mut Checker) {
        if self.value.is_empty() || self.value.len() > MAX_VALUE {
            c.problem_at("value", "is empty or over 4096 characters");
        } else if self.kind == ValueMatchKind::RegularExpression {
            c.require("value", check_regex(&self.value));
        }
    }
}

impl PathMatch {
    fn check(&self, c: &mut Checker) {
        if self.value.len() > MAX_PATH {
            c.problem_at("value", format!("is over {MAX_PATH} characters"));
            return;
        }
        match self.kind {
            PathMatchKind::RegularExpression => c.require("value", check_regex(&self.value)),
            PathMatchKind::Exact | PathMatchKind::PathPrefix => {
                c.require("value", check_path_value(&self.value));
            }
        }
    }
}

/// The Gateway API's rules for the value of an `Exact` or `PathPrefix` match.
fn check_path_value(value: &str) -> Result<(), String> {
    let refuse = |why: &str| Err(format!("'{}' {why}", shorten(value)));
    if !value.starts_with('/') {
        return refuse("does not start with '/'");
    }
    for bad in ["//", "/./", "/../", "%2f", "%2F", "#"] {
        if value.contains(bad) {
            return Err(format!("'{}' contains '{bad}'", shorten(value)));
        }
    }
    if value.ends_with("/.") || value.ends_with("/..") {
        return refuse("ends in a '.' or '..' segment");
    }
    let mut bytes = value.bytes();
    while let Some(byte) = bytes.next() {
        let fine = match byte {
            b'%' => {
                let hex = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_hexdigit());
                hex(bytes.next()) && hex(bytes.next())
            }
            _ => byte.is_ascii_alphanumeric() || b"-/._~!$&'()*+,;=:@".contains(&byte),
        };
        if !fine {
            return refuse("has a character that a path cannot have: write it as %XX");
        }
    }
    Ok(())
}

/// Syntax only. How large the compiled form is, shows where it is compiled (`weft-policy`).
fn check_regex(text: &str) -> Result<(), String> {
    let parsed = regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .nest_limit(64)
        .build()
        .parse(text);
    let reason = match parsed {
        Ok(_) => return Ok(()),
        Err(regex_syntax::Error::Parse(error)) => error.kind().to_string(),
        Err(regex_syntax::Error::Translate(error)) => error.kind().to_string(),
        Err(_) => "it is malformed".to_owned(),
    };
    Err(format!(
        "'{}' is not a regular expression: {reason}",
        shorten(text)
    ))
}

/// RFC 9110 §5.6.2: a token.
fn is_header_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= MAX_HEADER_NAME && name.bytes().all(token)
}

impl HttpRouteFilter {
    fn check(&self, c: &mut Checker) {
        let (wanted, other) = match self.kind {
            FilterKind::RequestHeaderModifier => (
                ("requestHeaderModifier", &self.request_header_modifier),
                ("responseHeaderModifier", &self.response_header_modifier),
            ),
            FilterKind::ResponseHeaderModifier => (
                ("responseHeaderModifier", &self.response_header_modifier),
                ("requestHeaderModifier", &self.request_header_modifier),
            ),
        };
        match wanted.1 {
            Some(modifier) => c.field(wanted.0, |c| modifier.check(c)),
            None => c.problem(format!("has the type of '{}' but not that field", wanted.0)),
        }
        if other.1.is_some() {
            c.problem_at(other.0, "does not go with the filter's type");
        }
    }
}

impl HeaderModifier {
    fn check(&self, c: &mut Checker) {
        let name_here = |c: &mut Checker, name: &str| {
            if !is_header_name(name) {
                c.problem(format!("'{}' is not the name of a header", shorten(name)));
            } else if RESERVED_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
                c.problem(format!("'{name}' is weft's own and cannot be changed"));
            }
        };
        for (key, list) in [("set", &self.set), ("add", &self.add)] {
            c.at_most(key, list, MAX_HEADERS);
            c.each(key, list, |c, header| {
                c.field("name", |c| name_here(c, &header.name));
                let fits = |b: u8| b == b'\t' || (b >= b' ' && b != 0x7f);
                if header.value.is_empty()
                    || header.value.len() > MAX_VALUE
                    || !header.value.bytes().all(fits)
                {
                    c.problem_at(
                        "value",
                        "is empty, over 4096 characters, or has control characters",
                    );
                }
            });
        }
        c.at_most("remove", &self.remove, MAX_HEADERS);
        c.each("remove", &self.remove, |c, header| name_here(c, header));
    }
}

impl HttpRouteTimeouts {
    fn check(&self, c: &mut Checker) {
        let (Some(request), Some(backend)) = (&self.request, &self.backend_request) else {
            return;
        };
        // Zero is no limit at all: GEP-1742 exempts it for the request as a whole.
        if request.value().is_zero() {
            return;
        }
        if backend.value() > request.value() {
            c.problem_at(
                "backendRequest",
                format!("{backend} is longer than the request timeout of {request}"),
            );
        }
    }
}

impl HttpRouteRetry {
    fn check(&self, c: &mut Checker) {
        c.at_most("codes", &self.codes, 200);
        c.each("codes", &self.codes, |c, code| {
            if !(400..=599).contains(code) {
                c.problem(format!("{code} is not a status from 400 to 599"));
            }
        });
        if let Some(attempts) = self.attempts
            && !(1..=MAX_ATTEMPTS).contains(&attempts)
        {
            c.problem_at(
                "attempts",
                format!("{attempts} is not a number from 1 to {MAX_ATTEMPTS}"),
            );
        }
    }
}
