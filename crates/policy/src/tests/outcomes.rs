//! What a rule does: weights, broken backends, timeouts, filters.

use std::collections::BTreeMap;
use std::time::Duration;

use http::HeaderMap;

use super::{ask, service, snapshot};
use crate::{RouteError, Snapshot, choose_backend};

/// A snapshot in which `invoices.default` has one rule, with these lines in it.
fn with_rule(services: &[&str], lines: &str) -> Snapshot {
    snapshot(
        services,
        &format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  \
             parentRefs: [{{kind: Service, name: invoices}}]\n  rules:\n  - {lines}\n"
        ),
    )
}

/// What each hundredth of all draws leads to.
fn shares(snapshot: &Snapshot) -> BTreeMap<String, u32> {
    let decision = ask(snapshot, "default", "GET /").unwrap();
    let mut shares = BTreeMap::new();
    for n in 0..100 {
        let draw = u64::MAX / 100 * n + u64::MAX / 200;
        let name = match choose_backend(snapshot, &decision, draw) {
            Ok((service, port)) => format!("{service}:{port}"),
            Err(error) => error.status().to_string(),
        };
        *shares.entry(name).or_default() += 1;
    }
    shares
}

#[test]
fn requests_are_shared_by_weight() {
    for (backends, expected) in [
        (
            "{name: a}, {name: b}",
            vec![("a.default:80", 50), ("b.default:80", 50)],
        ),
        (
            "{name: a, weight: 90}, {name: b, weight: 10}",
            vec![("a.default:80", 90), ("b.default:80", 10)],
        ),
        (
            "{name: a, weight: 9}, {name: b}",
            vec![("a.default:80", 90), ("b.default:80", 10)],
        ),
        (
            "{name: a, weight: 0}, {name: b, port: 81}",
            vec![("b.default:81", 100)],
        ),
    ] {
        let snapshot = with_rule(
            &["invoices", "a", "b"],
            &format!("backendRefs: [{backends}]"),
        );
        let expected: BTreeMap<String, u32> = expected
            .into_iter()
            .map(|(name, share)| (name.to_owned(), share))
            .collect();
        assert_eq!(shares(&snapshot), expected, "{backends}");
    }
}

#[test]
fn the_share_of_a_backend_that_cannot_be_used_gets_500_and_is_not_given_to_others() {
    for (backend, reason) in [
        ("{name: nobody}", "not a registered service"),
        (
            "{name: a, namespace: elsewhere}",
            "not a registered service",
        ),
        ("{name: b, port: 5432}", "a TCP port"),
        ("{name: b, port: 9}", "not a port of the service"),
    ] {
        let lines = format!("backendRefs: [{{name: a, weight: 3}}, {backend}]");
        let snapshot = with_rule(&["invoices", "a", "b"], &lines);
        assert_eq!(shares(&snapshot).get("500"), Some(&25), "{backend}");
        let decision = ask(&snapshot, "default", "GET /").unwrap();
        let error = choose_backend(&snapshot, &decision, u64::MAX).unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.proxy_status(), "proxy_configuration_error");
    }
}

#[test]
fn a_backend_without_instances_is_chosen_and_has_no_endpoints() {
    let snapshot = with_rule(
        &["invoices", "a", "empty!"],
        "backendRefs: [{name: a}, {name: empty}]",
    );
    assert_eq!(shares(&snapshot).get("empty.default:80"), Some(&50));
    assert_eq!(snapshot.endpoints(&service("empty"), 80).count(), 0);
    assert_eq!(snapshot.endpoints(&service("a"), 80).count(), 1);
}

#[test]
fn no_backend_at_all_or_only_weight_zero_is_500() {
    for lines in [
        "name: x",
        "backendRefs: []",
        "backendRefs: [{name: a, weight: 0}]",
    ] {
        let error = ask(&with_rule(&["invoices", "a"], lines), "default", "GET /").unwrap_err();
        assert!(
            matches!(error, RouteError::NoBackends(_)),
            "{lines}: {error}"
        );
        assert_eq!(error.status(), 500);
        assert!(
            error.to_string().contains("HTTPRoute/default/r#0"),
            "{error}"
        );
    }
}

#[test]
fn timeouts_are_the_rules_and_zero_is_none() {
    let seconds = |n| Some(Duration::from_secs(n));
    for (timeouts, request, backend) in [
        ("{}", None, None),
        ("{request: 5s}", seconds(5), None),
        (
            "{request: 10s, backendRequest: 2s}",
            seconds(10),
            seconds(2),
        ),
        ("{backendRequest: 2s}", None, seconds(2)),
        ("{request: 0s, backendRequest: 0h0m0s}", None, None),
    ] {
        let lines = format!("timeouts: {timeouts}\n    backendRefs: [{{name: a}}]");
        let decision = ask(&with_rule(&["a"], &lines), "default", "GET /").unwrap();
        assert_eq!(
            (decision.timeout, decision.backend_timeout),
            (request, backend),
            "{timeouts}"
        );
    }
}

#[test]
fn filters_edit_headers() {
    let lines = "filters:
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: X-Set, value: new}, {name: x-made, value: m}], add: [{name: x-add, value: b}], remove: [X-Gone]}
    - {type: ResponseHeaderModifier, responseHeaderModifier: {remove: [server]}}
    backendRefs: [{name: a}]";
    let decision = ask(&with_rule(&["a"], lines), "default", "GET /").unwrap();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("x-set", "old"),
        ("x-set", "older"),
        ("x-add", "a"),
        ("x-gone", "1"),
        ("x-kept", "k"),
    ] {
        headers.append(name, value.parse().unwrap());
    }
    decision.request_headers.apply(&mut headers);
    let all = |name| headers.get_all(name).iter().collect::<Vec<_>>();
    assert_eq!(all("x-set"), ["new"]);
    assert_eq!(all("x-made"), ["m"]);
    assert_eq!(all("x-add"), ["a", "b"]);
    assert_eq!(all("x-kept"), ["k"]);
    assert!(all("x-gone").is_empty());
    assert_eq!(decision.response_headers.remove, ["server"]);
    assert!(
        ask(&with_rule(&["a"], "backendRefs: [{name: a}]"), "x", "GET /")
            .unwrap()
            .request_headers
            .is_empty()
    );
}
