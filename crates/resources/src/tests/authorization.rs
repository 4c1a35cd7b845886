//! Rules of `AuthorizationPolicy`.

use super::{error_at, one};
use crate::{Action, AuthorizationPolicySpec, Port, Resource};

fn policy(spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {{name: p}}\nspec: {spec}\n"
    )
}

fn spec(text: &str) -> AuthorizationPolicySpec {
    match one(&policy(text)) {
        Resource::AuthorizationPolicy(policy) => policy.spec,
        other => panic!("expected an AuthorizationPolicy, got {other:?}"),
    }
}

#[test]
fn everything_at_once_is_read() {
    let spec = spec(
        "{targetRefs: [{kind: Service, name: invoices}], action: DENY, rules: [{from: [{source: {
  principals: ['spiffe://weft.local/ns/default/sa/orders', 'weft.local/ns/default/sa/*', '*'],
  notPrincipals: ['*/sa/x'], namespaces: [default]}}],
  to: [{operation: {methods: [GET, 'P*'], notMethods: [PUT], paths: [/a, '/b/*', '*.json'], notPaths: ['/c'], ports: [80, '443']}}]}]}",
    );
    assert_eq!(spec.action, Action::Deny);
    assert_eq!(spec.rules[0].to[0].operation.ports, [Port(80), Port(443)]);
}

#[test]
fn the_action_defaults_to_allow_and_rules_to_none() {
    let none = spec("{}");
    assert_eq!((none.action, none.rules.len()), (Action::Allow, 0));
    assert_eq!(spec("{rules: [{}]}").rules.len(), 1);
}

#[test]
fn what_could_not_mean_what_it_says_is_refused_at_its_field() {
    let source = |text: &str| format!("{{rules: [{{from: [{{source: {text}}}]}}]}}");
    let operation = |text: &str| format!("{{rules: [{{to: [{{operation: {text}}}]}}]}}");
    for (text, needle, reason) in [
        ("{targetRefs: []}".to_owned(), "[]", "empty list"),
        ("{rules: [{from: []}]}".to_owned(), "[]}", "empty list"),
        ("{rules: [{to: []}]}".to_owned(), "[]}", "empty list"),
        (source("{principals: []}"), "[]", "empty list"),
        (source("{}"), "{}}", "says nothing"),
        (
            source("{principals: [orders]}"),
            "orders",
            "not a SPIFFE ID",
        ),
        (
            source("{principals: ['spiffe:/weft.local/ns/x/sa/y']}"),
            "'spiffe:/weft.local/ns/x/sa/y'",
            "not a SPIFFE ID",
        ),
        (
            source("{principals: ['spiffe:///ns/x/sa/y']}"),
            "'spiffe:///ns/x/sa/y'",
            "not a SPIFFE ID",
        ),
        (
            source("{principals: ['a*b/c']}"),
            "'a*b/c'",
            "only once, at the start or at the end",
        ),
        (source("{principals: ['*a*']}"), "'*a*'", "only once"),
        (source("{principals: ['']}"), "'']", "is not a pattern"),
        (source("{ipBlocks: [1.2.3.4]}"), "ipBlocks", "unknown field"),
        (operation("{}"), "{}}", "says nothing"),
        (operation("{paths: [a]}"), "a]", "starts with '/'"),
        (operation("{paths: ['/a?b']}"), "'/a?b'", "ends before"),
        (operation("{paths: ['/a/{*}']}"), "'/a/{*}'", "only once"),
        (
            operation("{paths: ['/a/{id}']}"),
            "'/a/{id}'",
            "path template",
        ),
        (operation("{methods: [get]}"), "get", "upper-case"),
        (
            operation("{ports: [0]}"),
            "0]",
            "expected a port from 1 to 65535",
        ),
        (operation("{ports: [http]}"), "http]", "expected a port"),
        (operation("{hosts: [a]}"), "hosts", "unknown field"),
        (
            "{action: AUDIT}".to_owned(),
            "AUDIT",
            "expected ALLOW, DENY",
        ),
        ("{action: Deny}".to_owned(), "Deny", "did you mean 'DENY'?"),
        ("{selector: {}}".to_owned(), "selector", "not supported"),
        ("{rules: [{when: []}]}".to_owned(), "when", "not supported"),
        (
            "{targetRefs: [{kind: Service, name: a, namespace: b}]}".to_owned(),
            "namespace",
            "unknown field",
        ),
    ] {
        let error = error_at(&policy(&text), needle);
        assert!(
            error.reason.contains(reason),
            "expected '{reason}' of {text}, got {error}"
        );
    }
}

#[test]
fn patterns_match_as_istio_says() {
    for (pattern, text, fits) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a*", "a", true),
        ("a*", "ab", true),
        ("a*", "ba", false),
        ("*a", "a", true),
        ("*a", "ba", true),
        ("*a", "ab", false),
        ("*", "a", true),
        ("*", "", false),
    ] {
        let pattern = crate::Pattern::new(pattern).unwrap();
        assert_eq!(pattern.matches(text), fits, "{pattern} on '{text}'");
    }
}
