//! Rules of `HTTPRoute`.

use std::time::Duration;

use super::{error_at, errors, one, route_with};
use crate::{HttpRouteSpec, PathMatchKind, Resource};

fn spec(text: &str) -> HttpRouteSpec {
    match one(text) {
        Resource::HttpRoute(route) => route.spec,
        other => panic!("expected an HTTPRoute, got {other:?}"),
    }
}

#[test]
fn the_reference_scenario_is_read() {
    let spec = spec(&route_with(
        "- timeouts:\n    request: 5s\n  backendRefs:\n  - name: invoices\n    port: 80",
    ));
    let timeouts = spec.rules[0].timeouts.as_ref().unwrap();
    assert_eq!(
        timeouts.request.as_ref().unwrap().value(),
        Duration::from_secs(5)
    );
    assert_eq!(spec.rules[0].backend_refs[0].weight, 1);
    let parent = spec.parent_refs[0].service("default").unwrap();
    assert_eq!(parent.to_string(), "invoices.default");
}

#[test]
fn everything_at_once_is_read() {
    let spec = spec(&route_with(
        "- name: first
  matches:
  - path: {type: Exact, value: /a}
    method: POST
    headers: [{name: Version, value: two}, {type: RegularExpression, name: x, value: '^\\d+$'}]
    queryParams: [{name: q, value: '1'}]
  - path: {type: RegularExpression, value: '/v[0-9]+/.*'}
  - {}
  filters:
  - type: RequestHeaderModifier
    requestHeaderModifier: {set: [{name: a, value: b}], add: [{name: c, value: d}], remove: [e]}
  - type: ResponseHeaderModifier
    responseHeaderModifier: {remove: [server]}
  timeouts: {request: 10s, backendRequest: 2s}
  retry: {codes: [500, 503], attempts: 3, backoff: 25ms}
  backendRefs: [{name: a, weight: 90}, {name: b, namespace: other, port: 81, weight: 0, kind: Service, group: ''}]
- backendRefs: [{name: a}]",
    ));
    assert_eq!(spec.rules.len(), 2);
    assert_eq!(spec.rules[0].matches.len(), 3);
    assert_eq!(spec.rules[0].filters.len(), 2);
    assert_eq!(spec.rules[0].retry.as_ref().unwrap().attempts, Some(3));
}

#[test]
fn rules_left_out_are_one_that_matches_everything() {
    let spec = spec(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: a}\n\
         spec: {parentRefs: [{kind: Service, name: a}]}",
    );
    assert_eq!(spec.rules.len(), 1);
    assert!(spec.rules[0].matches.is_empty());
}

#[test]
fn a_path_match_defaults_to_prefix_and_root() {
    let spec = spec(&route_with(
        "- matches:\n  - path: {}\n  - path: {value: /a}",
    ));
    let path = |n: usize| spec.rules[0].matches[n].path.clone().unwrap();
    assert_eq!(
        (path(0).kind, path(0).value.as_str()),
        (PathMatchKind::PathPrefix, "/")
    );
    assert_eq!(
        (path(1).kind, path(1).value.as_str()),
        (PathMatchKind::PathPrefix, "/a")
    );
}

#[test]
fn path_values_of_exact_and_prefix_follow_the_spec() {
    for good in [
        "/",
        "/abc",
        "/abc/",
        "/a.b/..c/.d",
        "/%41-._~!$&'()*+,;=:@",
        "/...",
    ] {
        for kind in ["Exact", "PathPrefix"] {
            let _ = spec(&route_with(&format!(
                "- matches:\n  - path:\n      type: {kind}\n      value: \"{good}\""
            )));
        }
    }
    for bad in [
        "", "a", "a/b", "/a//b", "//", "/./a", "/a/../b", "/a%2fb", "/a%2Fb", "/a#b", "/a/.",
        "/a/..", "/a b", "/a?b", "/a[b", "/a%", "/a%4", "/a%zz", "/é", "/a{b}", "/a|b",
    ] {
        let text = route_with(&format!(
            "- matches:\n  - path:\n      type: Exact\n      value: \"{bad}\""
        ));
        let error = error_at(&text, &format!("\"{bad}\""));
        assert_eq!(error.path, "spec.rules[0].matches[0].path.value", "{bad}");
    }
    let long = format!("/{}", "a".repeat(1024));
    error_at(
        &route_with(&format!("- matches:\n  - path: {{value: {long}}}")),
        &long,
    );
}

#[test]
fn regular_expressions_are_checked_where_they_stand() {
    for bad in [
        "'('",
        "'a{2,1}'",
        "'[z-a]'",
        "'a**b('",
        "'\\p{Greek}'",
        "')('",
    ] {
        let text = route_with(&format!(
            "- matches:\n  - path: {{type: RegularExpression, value: {bad}}}"
        ));
        let error = error_at(&text, bad);
        assert!(
            error.reason.contains("is not a regular expression"),
            "{error}"
        );
        let header = format!(
            "- matches:\n  - headers: [{{type: RegularExpression, name: a, value: {bad}}}]"
        );
        error_at(&route_with(&header), bad);
    }
    // Large, but well-formed: only compiling it shows how large.
    let _ = spec(&route_with(
        "- matches:\n  - path: {type: RegularExpression, value: '(a{1000}){1000}'}",
    ));
}

#[test]
fn each_rule_of_the_gateway_api_is_enforced_at_its_field() {
    for (rules, needle, reason) in [
        ("- timeouts: {request: 5 s}", "5 s", "is not a duration"),
        ("- timeouts: {request: 5}", "5}", "expected a string"),
        (
            "- timeouts: {request: 1s, backendRequest: 1500ms}",
            "1500ms",
            "1s500ms is longer than the request timeout of 1s",
        ),
        (
            "- retry: {codes: [200]}",
            "200",
            "is not a status from 400 to 599",
        ),
        ("- retry: {codes: [500, 600]}", "600", "is not a status"),
        ("- retry: {attempts: 0}", "0}", "is not a number from 1"),
        ("- retry: {attempts: -1}", "-1", "expected u32"),
        ("- retry: {backoff: soon}", "soon", "is not a duration"),
        (
            "- backendRefs: [{name: a, weight: 1000001}]",
            "1000001",
            "over the limit of 1000000",
        ),
        ("- backendRefs: [{name: A}]", "A}", "is not a name"),
        (
            "- backendRefs: [{name: a, namespace: b_c}]",
            "b_c",
            "is not a name",
        ),
        ("- backendRefs: [{name: a, port: 0}]", "0}", "not a port"),
        (
            "- backendRefs: [{name: a, port: 65536}]",
            "65536",
            "expected u16",
        ),
        (
            "- backendRefs: [{name: a, kind: Pod}]",
            "Pod",
            "expected Service",
        ),
        (
            "- backendRefs: [{name: a, group: apps}]",
            "apps",
            "not the group of Service",
        ),
        (
            "- backendRefs: [{port: 80}]",
            "{port: 80}",
            "field 'name' is missing",
        ),
        (
            "- backendRefs: [{name: a, filters: []}]",
            "filters",
            "not supported",
        ),
        (
            "- filters: [{type: RequestMirror}]",
            "RequestMirror",
            "not supported here",
        ),
        (
            "- filters: [{type: URLRewrite, urlRewrite: {}}]",
            "URLRewrite",
            "not supported here",
        ),
        (
            "- filters: [{requestRedirect: {}}]",
            "requestRedirect",
            "not supported",
        ),
        (
            "- filters: [{type: RequestHeaderModifier}]",
            "{type",
            "not that field",
        ),
        (
            "- filters: [{type: RequestHeaderModifier, requestHeaderModifier: {remove: [Host]}}]",
            "Host",
            "cannot be changed",
        ),
        (
            "- filters: [{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: 'a b', value: c}]}}]",
            "'a b'",
            "not the name of a header",
        ),
        (
            "- filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: a, value: \"b\\r\\nc\"}]}}]",
            "\"b\\r",
            "control characters",
        ),
        ("- matches: [{method: get}]", "get", "did you mean 'GET'?"),
        ("- matches: [{method: BREW}]", "BREW", "expected GET, HEAD"),
        (
            "- matches: [{headers: [{name: 'a:', value: b}]}]",
            "'a:'",
            "not the name of a header",
        ),
        (
            "- matches: [{headers: [{name: a, value: 1}]}]",
            "1}",
            "expected a string, found the number 1: put it in quotes",
        ),
        (
            "- matches: [{headers: [{name: a, value: ''}]}]",
            "''",
            "is empty",
        ),
        (
            "- matches: [{queryParams: [{name: '', value: a}]}]",
            "''",
            "is empty",
        ),
        (
            "- matches: [{path: {type: Prefix, value: /}}]",
            "Prefix",
            "expected Exact, PathPrefix",
        ),
        (
            "- mathces: []",
            "mathces",
            "unknown field 'mathces': did you mean 'matches'?",
        ),
        (
            "- unheard: []",
            "unheard",
            "unknown field 'unheard': known are name, matches",
        ),
        (
            "- sessionPersistence: {}",
            "sessionPersistence",
            "not supported",
        ),
        (
            "- timeouts: []",
            "[]",
            "expected a map with the fields request, backendRequest",
        ),
        ("- [a]", "[a]", "expected a map"),
    ] {
        let text = route_with(rules);
        let error = error_at(&text, needle);
        assert!(
            error.reason.contains(reason),
            "expected '{reason}' of\n{rules}\ngot {error}"
        );
        assert!(error.path.starts_with("spec.rules[0]"), "{error}");
    }
}

#[test]
fn zero_as_request_timeout_is_no_limit_for_backend_request() {
    let _ = spec(&route_with("- timeouts: {request: 0s, backendRequest: 5s}"));
    let _ = spec(&route_with(
        "- timeouts: {request: 5s, backendRequest: 5000ms}",
    ));
}

#[test]
fn limits_of_number_are_enforced() {
    let many = |count: usize, item: &str| vec![item; count].join(", ");
    let _ = spec(&route_with(&format!("- matches: [{}]", many(64, "{}"))));
    for (rules, path) in [
        (
            format!("- matches: [{}]", many(65, "{}")),
            "spec.rules[0].matches",
        ),
        ("- {}\n".repeat(17), "spec.rules"),
        (
            format!("- matches: [{}]\n", many(43, "{}")).repeat(3),
            "spec.rules",
        ),
        (
            format!("- backendRefs: [{}]", many(17, "{name: a}")),
            "spec.rules[0].backendRefs",
        ),
        (
            format!(
                "- matches: [{{headers: [{}]}}]",
                many(17, "{name: a, value: b}")
            ),
            "spec.rules[0].matches[0].headers",
        ),
    ] {
        let errors = errors(&route_with(&rules));
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].path, path, "{}", errors[0]);
        assert!(errors[0].line > 0);
    }
}

#[test]
fn all_broken_rules_of_a_document_are_reported() {
    let errors = errors(&route_with(
        "- timeouts: {request: 1s, backendRequest: 2s}
  retry: {codes: [1, 2]}
- name: twice
- name: twice
  backendRefs: [{name: Bad}]",
    ));
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "spec.rules[0].timeouts.backendRequest",
            "spec.rules[0].retry.codes[0]",
            "spec.rules[0].retry.codes[1]",
            "spec.rules[2].backendRefs[0].name",
            "spec.rules[2].name",
        ]
    );
}

#[test]
fn parents_are_services() {
    for (parent, needle, reason) in [
        ("{name: a}", "{name: a}", "field 'kind' is missing"),
        ("{kind: Gateway, name: a}", "Gateway", "expected Service"),
        (
            "{kind: Service, name: a, sectionName: http}",
            "sectionName",
            "not supported",
        ),
        ("{kind: Service, name: a.b}", "a.b", "is not a name"),
        (
            "{kind: Service, group: gateway.networking.k8s.io, name: a}",
            "gateway.networking.k8s.io, name",
            "not the group of Service",
        ),
    ] {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: x}}\nspec:\n  parentRefs:\n  - {parent}\n"
        );
        let error = error_at(&text, needle);
        assert!(error.reason.contains(reason), "{error}");
    }
    let none = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: x}\nspec:\n  parentRefs: []\n";
    assert!(error_at(none, "[]").reason.contains("name the service"));
}
