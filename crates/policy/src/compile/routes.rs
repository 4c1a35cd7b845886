//! Compiles `HTTPRoute`s: one list of matches for each service and namespace, the most specific first.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use regex::bytes::{Regex, RegexBuilder};
use weft_resources::{
    FilterKind, GatewayDuration, HeaderModifier, HttpRoute, HttpRouteMatch, HttpRouteRule,
    NamedMatch, PathMatch, PathMatchKind, ServiceName, ValueMatchKind,
};

use super::CompileError;
use crate::headers::HeaderEdits;
use crate::matcher::{Matcher, PathMatcher, ValueMatcher};
use crate::path::normalize_path;
use crate::request::RequestHead;
use crate::retry::RetryPolicy;
use crate::route::Backend;

/// Largest compiled form of a regular expression, in bytes. Ordinary ones take a few thousand; one over this
/// costs memory in every sidecar of the mesh.
pub(crate) const REGEX_SIZE_LIMIT: usize = 256 * 1024;

/// The routes of a service, by the namespace they are written in.
#[derive(Debug, Default)]
pub(crate) struct ServiceRoutes {
    pub(crate) by_namespace: BTreeMap<String, RouteSet>,
}

/// The matches of all routes for a service from one namespace.
#[derive(Debug, Default)]
pub(crate) struct RouteSet {
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    /// Only for this port of the service.
    port: Option<u16>,
    matcher: Arc<Matcher>,
    /// Position among equals: namespace/name of the route, rule, match.
    order: (Arc<str>, usize, usize),
    action: Arc<Action>,
}

/// What a rule does.
#[derive(Debug)]
pub(crate) struct Action {
    pub(crate) rule: Arc<str>,
    pub(crate) backends: Arc<[Backend]>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) backend_timeout: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) request_headers: Arc<HeaderEdits>,
    pub(crate) response_headers: Arc<HeaderEdits>,
}

impl RouteSet {
    /// Whether any match is for this port.
    pub(crate) fn covers(&self, port: u16) -> bool {
        self.entries.iter().any(|entry| entry.is_for(port))
    }

    /// What the first match that fits does.
    pub(crate) fn find(&self, port: u16, head: &RequestHead<'_>) -> Option<&Action> {
        self.entries
            .iter()
            .find(|entry| entry.is_for(port) && entry.matcher.fits(head))
            .map(|entry| &*entry.action)
    }
}

impl Entry {
    fn is_for(&self, port: u16) -> bool {
        self.port.is_none_or(|only| only == port)
    }
}

impl ServiceRoutes {
    pub(crate) fn sort(&mut self) {
        for set in self.by_namespace.values_mut() {
            set.entries.sort_by(|a, b| {
                a.matcher
                    .precedence()
                    .cmp(&b.matcher.precedence())
                    .then_with(|| a.order.cmp(&b.order))
            });
        }
    }
}

/// Adds a route's matches to each of its parents.
pub(super) fn add(
    routes: &mut BTreeMap<ServiceName, ServiceRoutes>,
    key: &Arc<str>,
    route: &HttpRoute,
) -> Result<(), CompileError> {
    let namespace = &route.metadata.namespace;
    let parents: BTreeSet<(ServiceName, Option<u16>)> = route
        .spec
        .parent_refs
        .iter()
        .filter_map(|parent| Some((parent.service(namespace)?, parent.port)))
        .collect();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let action = Arc::new(action(key, namespace, index, rule)?);
        for (position, matcher) in matchers(key, rule)?.into_iter().enumerate() {
            for (service, port) in &parents {
                let service_routes = routes.entry(service.clone()).or_default();
                let set = service_routes
                    .by_namespace
                    .entry(namespace.clone())
                    .or_default();
                set.entries.push(Entry {
                    port: *port,
                    matcher: matcher.clone(),
                    order: (key.clone(), index, position),
                    action: action.clone(),
                });
            }
        }
    }
    Ok(())
}

fn action(
    key: &str,
    namespace: &str,
    index: usize,
    rule: &HttpRouteRule,
) -> Result<Action, CompileError> {
    let backends = rule.backend_refs.iter().filter_map(|backend| {
        Some(Backend {
            service: backend.service(namespace)?,
            port: backend.port,
            weight: backend.weight,
        })
    });
    let edits = |kind| {
        let filter = rule.filters.iter().find(|filter| filter.kind == kind);
        let modifier = filter.and_then(|filter| match kind {
            FilterKind::RequestHeaderModifier => filter.request_header_modifier.as_ref(),
            FilterKind::ResponseHeaderModifier => filter.response_header_modifier.as_ref(),
        });
        modifier.map_or_else(|| Ok(HeaderEdits::default()), |m| header_edits(key, m))
    };
    let timeouts = rule.timeouts.clone().unwrap_or_default();
    Ok(Action {
        rule: Arc::from(format!("{key}#{index}")),
        backends: backends.collect(),
        timeout: limit(timeouts.request.as_ref()),
        backend_timeout: limit(timeouts.backend_request.as_ref()),
        retry: rule
            .retry
            .as_ref()
            .map(RetryPolicy::from_stanza)
            .unwrap_or_default(),
        request_headers: Arc::new(edits(FilterKind::RequestHeaderModifier)?),
        response_headers: Arc::new(edits(FilterKind::ResponseHeaderModifier)?),
    })
}

/// `0s` is no limit (Gateway API, `HTTPRouteTimeouts`).
fn limit(duration: Option<&GatewayDuration>) -> Option<Duration> {
    duration
        .map(GatewayDuration::value)
        .filter(|value| !value.is_zero())
}

fn header_edits(key: &str, modifier: &HeaderModifier) -> Result<HeaderEdits, CompileError> {
    let name = |text: &str| {
        HeaderName::try_from(text)
            .map_err(|_| CompileError::new(key, format!("'{text}' is not the name of a header")))
    };
    let pairs = |list: &[weft_resources::Header]| {
        list.iter()
            .map(|header| {
                let value = HeaderValue::try_from(&header.value).map_err(|_| {
                    CompileError::new(
                        key,
                        format!("the value of '{}' cannot be sent", header.name),
                    )
                })?;
                Ok((name(&header.name)?, value))
            })
            .collect::<Result<Vec<_>, CompileError>>()
    };
    Ok(HeaderEdits {
        set: pairs(&modifier.set)?,
        add: pairs(&modifier.add)?,
        remove: modifier
            .remove
            .iter()
            .map(|text| name(text))
            .collect::<Result<_, _>>()?,
    })
}

/// The matches of a rule. Without any, the one that fits every request.
fn matchers(key: &str, rule: &HttpRouteRule) -> Result<Vec<Arc<Matcher>>, CompileError> {
    let everything = [HttpRouteMatch::default()];
    let matches = match rule.matches.as_slice() {
        [] => &everything,
        some => some,
    };
    matches
        .iter()
        .map(|m| Ok(Arc::new(matcher(key, m)?)))
        .collect()
}

fn matcher(key: &str, m: &HttpRouteMatch) -> Result<Matcher, CompileError> {
    let mut headers: Vec<(HeaderName, ValueMatcher)> = Vec::new();
    for header in &m.headers {
        let name = HeaderName::try_from(&header.name).map_err(|_| {
            CompileError::new(
                key,
                format!("'{}' is not the name of a header", header.name),
            )
        })?;
        // Of equal names only the first counts (Gateway API, `HTTPHeaderMatch`).
        if headers.iter().all(|(known, _)| *known != name) {
            headers.push((name, value_matcher(key, header)?));
        }
    }
    let mut query: Vec<(String, ValueMatcher)> = Vec::new();
    for param in &m.query_params {
        if query.iter().all(|(known, _)| *known != param.name) {
            query.push((param.name.clone(), value_matcher(key, param)?));
        }
    }
    let method = m.method.map(|method| {
        Method::from_bytes(method.as_str().as_bytes()).expect("the enum has valid methods only")
    });
    Ok(Matcher {
        path: path_matcher(key, &m.path.clone().unwrap_or_default())?,
        method,
        headers,
        query,
    })
}

fn path_matcher(key: &str, path: &PathMatch) -> Result<PathMatcher, CompileError> {
    if path.kind == PathMatchKind::RegularExpression {
        return Ok(PathMatcher::Regex(regex(key, &path.value)?));
    }
    // Requests come in normal form, so what they are compared with must be in it too.
    let normal = normalize_path(&path.value).map_err(|error| {
        CompileError::new(
            key,
            format!("path '{}' can never match: {error}", path.value),
        )
    })?;
    Ok(match path.kind {
        PathMatchKind::Exact => PathMatcher::Exact(normal.into_owned()),
        _ => PathMatcher::Prefix(normal.strip_suffix('/').unwrap_or(&normal).to_owned()),
    })
}

fn value_matcher(key: &str, m: &NamedMatch) -> Result<ValueMatcher, CompileError> {
    Ok(match m.kind {
        ValueMatchKind::Exact => ValueMatcher::Exact(m.value.clone()),
        ValueMatchKind::RegularExpression => ValueMatcher::Regex(regex(key, &m.value)?),
    })
}

/// Fits whole values only. Bytes, not characters: classes such as `\d` are ASCII.
fn regex(key: &str, text: &str) -> Result<Regex, CompileError> {
    let build = |text: &str| {
        RegexBuilder::new(text)
            .unicode(false)
            .size_limit(REGEX_SIZE_LIMIT)
            .dfa_size_limit(REGEX_SIZE_LIMIT)
            .nest_limit(64)
            .build()
    };
    // Alone first, so that no `)` can end the group around it.
    let built = build(text).and_then(|_| build(&format!(r"\A(?:{text})\z")));
    built.map_err(|error| {
        let shown: String = text.chars().take(80).collect();
        let reason = match error {
            regex::Error::CompiledTooBig(limit) => {
                format!("regular expression '{shown}' compiles to more than {limit} bytes")
            }
            other => format!("'{shown}' is not a regular expression: {other}"),
        };
        CompileError::new(key, reason)
    })
}
