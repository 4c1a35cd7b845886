//! Route matching against a slow and obvious model.

use std::cmp::Ordering;

use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use weft_resources::{
    BackendRef, HttpMethod, HttpRoute, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, Metadata,
    NamedMatch, ParentRef, PathMatch, PathMatchKind, Resource, ServiceKind, ValueMatchKind,
};

use super::{Words, endpoints, service};
use crate::{Snapshot, route};

const PATHS: [&str; 9] = [
    "/", "/a", "/a/", "/a/b", "/a/b/", "/ab", "/b", "/a/b/c", "/a.b",
];
const REGEXES: [&str; 5] = ["/a.*", "/[ab]", "/a/b", "/a|/b", ".*"];
const NAMESPACES: [&str; 3] = ["default", "shop", "team"];

fn named(kind: ValueMatchKind, name: &str, value: &str) -> NamedMatch {
    let (name, value) = (name.to_owned(), value.to_owned());
    NamedMatch { kind, name, value }
}

fn a_match() -> impl Strategy<Value = HttpRouteMatch> {
    let path = prop_oneof![
        1 => Just(None),
        3 => (any::<bool>(), select(&PATHS[..])).prop_map(|(exact, value)| {
            let kind = if exact { PathMatchKind::Exact } else { PathMatchKind::PathPrefix };
            Some(PathMatch { kind, value: value.to_owned() })
        }),
        1 => select(&REGEXES[..]).prop_map(|value| {
            Some(PathMatch { kind: PathMatchKind::RegularExpression, value: value.to_owned() })
        }),
    ];
    let method = prop::option::weighted(0.3, select(vec![HttpMethod::Get, HttpMethod::Post]));
    let conditions = || {
        let all = vec![
            named(ValueMatchKind::Exact, "x", "1"),
            named(ValueMatchKind::Exact, "y", "2"),
            named(ValueMatchKind::RegularExpression, "x", "[12]"),
        ];
        prop_oneof![2 => Just(Vec::new()), 1 => subsequence(all, 0..=3)]
    };
    (path, method, conditions(), conditions()).prop_map(|(path, method, headers, query_params)| {
        HttpRouteMatch {
            path,
            method,
            headers,
            query_params,
        }
    })
}

/// A route for `invoices.default`, named later.
fn a_route() -> impl Strategy<Value = HttpRoute> {
    let rules = prop::collection::vec(prop::collection::vec(a_match(), 0..3), 1..4);
    let port = prop::option::weighted(0.2, select(vec![80_u16, 81]));
    (select(&NAMESPACES[..]), rules, port).prop_map(|(namespace, rules, port)| {
        let backend = BackendRef {
            group: None,
            kind: ServiceKind::Service,
            namespace: None,
            name: "one".to_owned(),
            port: None,
            weight: 1,
        };
        let rule = |matches| HttpRouteRule {
            matches,
            backend_refs: vec![backend.clone()],
            ..HttpRouteRule::default()
        };
        let parent = ParentRef {
            group: None,
            kind: ServiceKind::Service,
            namespace: Some("default".to_owned()),
            name: "invoices".to_owned(),
            port,
        };
        HttpRoute {
            metadata: Metadata::new(namespace, "unnamed"),
            spec: HttpRouteSpec {
                parent_refs: vec![parent],
                hostnames: Vec::new(),
                rules: rules.into_iter().map(rule).collect(),
            },
        }
    })
}

/// A request in the words of [`Words`].
fn a_request() -> impl Strategy<Value = String> {
    let query = select(vec!["", "?x=1", "?y=2&x=2", "?x=3&x=1", "?X=1", "?x=1&y=2"]);
    let headers = select(vec!["", " x=1", " x=2 y=2", " y=2", " x=1 x=2", " X=1 y=2"]);
    (
        select(vec!["GET", "POST"]),
        select(&PATHS[..]),
        query,
        headers,
    )
        .prop_map(|(method, path, query, headers)| format!("{method} {path}{query}{headers}"))
}

/// The slow and obvious way: look at every match of every route, keep the best.
fn model(routes: &[HttpRoute], caller: &str, port: u16, words: &Words) -> Option<Option<String>> {
    let for_port = |route: &&HttpRoute| route.spec.parent_refs[0].port.is_none_or(|p| p == port);
    let of = |namespace: &str| -> Vec<&HttpRoute> {
        let own = routes.iter().filter(for_port);
        own.filter(|route| route.metadata.namespace == namespace)
            .collect()
    };
    let mut set = of(caller);
    if set.is_empty() {
        set = of("default");
    }
    if set.is_empty() {
        return None;
    }
    let mut best: Option<(HttpRouteMatch, String, usize)> = None;
    for route in set {
        for (index, rule) in route.spec.rules.iter().enumerate() {
            let matches = match rule.matches.is_empty() {
                true => vec![HttpRouteMatch::default()],
                false => rule.matches.clone(),
            };
            for m in matches.into_iter().filter(|m| fits(m, words)) {
                let name = format!("{}/{}", route.metadata.namespace, route.metadata.name);
                let better = best
                    .as_ref()
                    .is_none_or(|(known, known_name, known_index)| {
                        compare(&m, known)
                            .then_with(|| known_name.cmp(&name))
                            .then_with(|| known_index.cmp(&index))
                            .is_gt()
                    });
                if better {
                    best = Some((m, name, index));
                }
            }
        }
    }
    Some(best.map(|(_, name, index)| format!("HTTPRoute/{name}#{index}")))
}

fn fits(m: &HttpRouteMatch, words: &Words) -> bool {
    let path = m.path.clone().unwrap_or_default();
    let segments = |text: &str| -> Vec<String> {
        text.trim_end_matches('/')
            .split('/')
            .map(str::to_owned)
            .collect()
    };
    let path_fits = match path.kind {
        PathMatchKind::Exact => path.value == words.path,
        PathMatchKind::PathPrefix => segments(&words.path).starts_with(&segments(&path.value)),
        PathMatchKind::RegularExpression => whole(&path.value, &words.path),
    };
    let method_fits = m
        .method
        .is_none_or(|method| method.as_str() == words.method.as_str());
    let header = |name: &str| {
        let values: Vec<&str> = words
            .headers
            .get_all(name)
            .iter()
            .map(|value| value.to_str().unwrap())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    };
    let query = |name: &str| {
        let query = words.query.clone().unwrap_or_default();
        let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        pairs
            .filter(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
            .next()
    };
    let holds = |condition: &NamedMatch, value: Option<String>| match (condition.kind, value) {
        (_, None) => false,
        (ValueMatchKind::Exact, Some(value)) => value == condition.value,
        (ValueMatchKind::RegularExpression, Some(value)) => whole(&condition.value, &value),
    };
    path_fits
        && method_fits
        && distinct(&m.headers)
            .iter()
            .all(|c| holds(c, header(&c.name)))
        && distinct(&m.query_params)
            .iter()
            .all(|c| holds(c, query(&c.name)))
}

/// Only the first of equal names counts.
fn distinct(conditions: &[NamedMatch]) -> Vec<NamedMatch> {
    let mut out: Vec<NamedMatch> = Vec::new();
    for condition in conditions {
        if !out.iter().any(|known| known.name == condition.name) {
            out.push(condition.clone());
        }
    }
    out
}

fn whole(pattern: &str, text: &str) -> bool {
    regex::bytes::Regex::new(&format!("^(?:{pattern})$"))
        .unwrap()
        .is_match(text.as_bytes())
}

/// `Greater` if `a` goes before `b`.
fn compare(a: &HttpRouteMatch, b: &HttpRouteMatch) -> Ordering {
    let path = |m: &HttpRouteMatch| m.path.clone().unwrap_or_default();
    let rank = |m: &HttpRouteMatch| match path(m).kind {
        PathMatchKind::Exact => 2,
        PathMatchKind::RegularExpression => 1,
        PathMatchKind::PathPrefix => 0,
    };
    let length = |m: &HttpRouteMatch| match path(m).kind {
        PathMatchKind::Exact => 0,
        PathMatchKind::PathPrefix => path(m).value.trim_end_matches('/').len(),
        PathMatchKind::RegularExpression => path(m).value.len(),
    };
    rank(a)
        .cmp(&rank(b))
        .then_with(|| length(a).cmp(&length(b)))
        .then_with(|| a.method.is_some().cmp(&b.method.is_some()))
        .then_with(|| distinct(&a.headers).len().cmp(&distinct(&b.headers).len()))
        .then_with(|| {
            distinct(&a.query_params)
                .len()
                .cmp(&distinct(&b.query_params).len())
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn routing_agrees_with_the_model(
        mut routes in prop::collection::vec(a_route(), 0..5),
        requests in prop::collection::vec((a_request(), select(&NAMESPACES[..]), select(vec![80_u16, 81])), 1..12),
    ) {
        for (index, route) in routes.iter_mut().enumerate() {
            // Names in no order, so that the order of the list can not stand in for theirs.
            route.metadata.name = format!("r{}", (index * 7 + 3) % 5);
        }
        let resources: Vec<Resource> = routes.iter().cloned().map(Resource::HttpRoute).collect();
        let snapshot = Snapshot::compile(1, &resources, endpoints(&["invoices", "one"])).unwrap();
        for (request, caller, port) in requests {
            let words = Words::new(&request);
            let decision = route(&snapshot, caller, &service("invoices"), port, &words.head());
            let got = decision.as_ref().ok().map(|decision| decision.rule.to_string());
            let expected = match model(&routes, caller, port, &words) {
                None => Some(crate::DEFAULT_RULE.to_owned()),
                Some(rule) => rule,
            };
            prop_assert_eq!(got, expected, "{} from {} to port {}", request, caller, port);
        }
    }

    #[test]
    fn the_order_of_resources_has_no_effect(mut routes in prop::collection::vec(a_route(), 2..5), request in a_request()) {
        for (index, route) in routes.iter_mut().enumerate() {
            route.metadata.name = format!("r{index}");
        }
        let rule = |routes: &[HttpRoute]| {
            let resources: Vec<Resource> = routes.iter().cloned().map(Resource::HttpRoute).collect();
            let snapshot = Snapshot::compile(1, &resources, endpoints(&["invoices"])).unwrap();
            super::ask(&snapshot, "shop", &request).map(|decision| decision.rule)
        };
        let forward = rule(&routes);
        routes.reverse();
        prop_assert_eq!(forward, rule(&routes));
    }
}
