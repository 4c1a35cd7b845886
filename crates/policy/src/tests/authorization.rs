//! Who may call what: Istio's semantics, with deny as the default.

use super::{Words, id, service, snapshot};
use crate::{DEFAULT_DENY, Snapshot, Verdict, authorize};

const ORDERS: &str = "spiffe://weft.local/ns/default/sa/orders";
const SHOP: &str = "spiffe://weft.local/ns/shop/sa/web";
const NO_SERVICE: &str = "spiffe://weft.local/workload/7";

/// The trust domain of the mesh that decides.
fn home() -> weft_certs::TrustDomain {
    id(ORDERS).trust_domain().clone()
}

fn policy(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn for_invoices(name: &str, rest: &str) -> String {
    policy(
        name,
        &format!("{{targetRefs: [{{kind: Service, name: invoices}}], {rest}}}"),
    )
}

/// `request` in words, or `TCP`.
fn verdict(snapshot: &Snapshot, caller: &str, port: u16, request: &str) -> Verdict {
    let target = service("invoices");
    if request == "TCP" {
        return authorize(snapshot, &home(), &target, port, &id(caller), None);
    }
    let words = Words::new(request);
    let head = words.head();
    authorize(snapshot, &home(), &target, port, &id(caller), Some(&head))
}

/// Each caller and request on port 80 with whether it may pass.
fn check(yaml: &str, calls: &[(&str, &str, bool)]) {
    let snapshot = snapshot(&["invoices"], yaml);
    for (caller, request, allowed) in calls {
        let verdict = verdict(&snapshot, caller, 80, request);
        assert_eq!(
            verdict.allowed, *allowed,
            "{request} by {caller}: {verdict:?} of\n{yaml}"
        );
    }
}

#[test]
fn without_any_allow_policy_nobody_may_call() {
    let snapshot = snapshot(&["invoices"], "");
    let verdict = verdict(&snapshot, ORDERS, 80, "GET /");
    assert_eq!((verdict.allowed, &*verdict.rule), (false, DEFAULT_DENY));
}

#[test]
fn rules_decide_by_how_many_there_are() {
    for (spec, allowed) in [
        ("action: ALLOW", false),
        ("rules: []", false),
        ("rules: [{}]", true),
        ("action: DENY, rules: [{}]", false),
        ("action: DENY", false),
    ] {
        check(
            &for_invoices("p", spec),
            &[(ORDERS, "GET /", allowed), (ORDERS, "TCP", allowed)],
        );
    }
}

#[test]
fn a_deny_without_rules_has_no_effect_and_a_deny_that_matches_overrides_every_allow() {
    let allow = for_invoices("allow", "rules: [{}]");
    check(
        &format!("{allow}{}", for_invoices("none", "action: DENY")),
        &[(ORDERS, "GET /", true)],
    );
    check(
        &format!(
            "{allow}{}",
            for_invoices("all", "action: DENY, rules: [{}]")
        ),
        &[(ORDERS, "GET /", false)],
    );
    let some = for_invoices(
        "some",
        "action: DENY, rules: [{to: [{operation: {paths: [/admin, '/admin/*']}}]}]",
    );
    check(
        &format!("{allow}{some}"),
        &[
            (ORDERS, "GET /", true),
            (ORDERS, "GET /admin", false),
            (ORDERS, "GET /admin/x", false),
            (ORDERS, "GET //admin", false),
            (ORDERS, "GET /x/../admin", false),
            (ORDERS, "GET /%61dmin/x", false),
            (ORDERS, "GET /admin?x=/", false),
            (ORDERS, "GET /admins", true),
        ],
    );
}

#[test]
fn the_verdict_names_its_rule() {
    let text = format!(
        "{}{}",
        for_invoices(
            "allow",
            "rules: [{to: [{operation: {methods: [POST]}}]}, {from: [{source: {namespaces: [default]}}]}]"
        ),
        for_invoices(
            "deny",
            "action: DENY, rules: [{to: [{operation: {methods: [DELETE]}}]}]"
        )
    );
    let snapshot = snapshot(&["invoices"], &text);
    for (caller, request, rule) in [
        (ORDERS, "GET /", "AuthorizationPolicy/default/allow#1"),
        (ORDERS, "POST /", "AuthorizationPolicy/default/allow#0"),
        (ORDERS, "DELETE /", "AuthorizationPolicy/default/deny#0"),
        (SHOP, "GET /", DEFAULT_DENY),
    ] {
        assert_eq!(
            &*verdict(&snapshot, caller, 80, request).rule,
            rule,
            "{request} by {caller}"
        );
    }
}

#[test]
fn callers_are_known_by_principal_and_namespace() {
    for (source, orders, shop, no_service) in [
        (
            "principals: ['spiffe://weft.local/ns/default/sa/orders']",
            true,
            false,
            false,
        ),
        (
            "principals: ['weft.local/ns/default/sa/orders']",
            true,
            false,
            false,
        ),
        (
            "principals: ['spiffe://weft.local/ns/default/sa/order']",
            false,
            false,
            false,
        ),
        (
            "principals: ['weft.local/ns/default/*']",
            true,
            false,
            false,
        ),
        ("principals: ['spiffe://weft.local/*']", true, true, true),
        ("principals: ['*/sa/orders']", true, false, false),
        ("principals: ['*']", true, true, true),
        ("principals: ['spiffe://*']", true, true, true),
        (
            "principals: ['other.example/ns/default/sa/orders']",
            false,
            false,
            false,
        ),
        ("notPrincipals: ['*/sa/orders']", false, true, true),
        (
            "principals: ['*'], notPrincipals: ['weft.local/ns/shop/*']",
            true,
            false,
            true,
        ),
        ("namespaces: [default]", true, false, false),
        ("namespaces: ['s*', x]", false, true, false),
        ("namespaces: ['*']", true, true, false),
        (
            "principals: ['*/sa/web'], namespaces: [default]",
            false,
            false,
            false,
        ),
    ] {
        check(
            &for_invoices(
                "p",
                &format!("rules: [{{from: [{{source: {{{source}}}}}]}}]"),
            ),
            &[
                (ORDERS, "GET /", orders),
                (SHOP, "GET /", shop),
                (NO_SERVICE, "GET /", no_service),
            ],
        );
    }
}

#[test]
fn operations_are_known_by_method_path_and_port() {
    for (operation, calls) in [
        (
            "methods: [GET, 'P*']",
            [("GET /", true), ("PUT /", true), ("DELETE /", false)],
        ),
        (
            "notMethods: [GET]",
            [("GET /", false), ("PUT /", true), ("DELETE /", true)],
        ),
        (
            "paths: [/a]",
            [("GET /a", true), ("GET /a/", false), ("GET /b", false)],
        ),
        (
            "paths: ['/a/*', '*.json']",
            [("GET /a/b", true), ("GET /x.json", true), ("GET /a", false)],
        ),
        (
            "paths: ['*'], notPaths: ['/a*']",
            [("GET /b", true), ("GET /a", false), ("GET /%61b", false)],
        ),
        (
            "methods: [GET], paths: [/a]",
            [("GET /a", true), ("PUT /a", false), ("GET /b", false)],
        ),
        (
            "ports: [80]",
            [("GET /", true), ("PUT /", true), ("TCP", true)],
        ),
        (
            "ports: ['81']",
            [("GET /", false), ("PUT /", false), ("TCP", false)],
        ),
    ] {
        let text = for_invoices(
            "p",
            &format!("rules: [{{to: [{{operation: {{{operation}}}}}]}}]"),
        );
        check(
            &text,
            &calls.map(|(request, allowed)| (ORDERS, request, allowed)),
        );
    }
}

#[test]
fn from_and_to_must_both_match_and_in_each_one_is_enough() {
    let text = for_invoices(
        "p",
        "rules: [{from: [{source: {namespaces: [x]}}, {source: {namespaces: [default]}}],
                  to: [{operation: {methods: [PUT]}}, {operation: {paths: [/a]}}]}]",
    );
    check(
        &text,
        &[
            (ORDERS, "PUT /", true),
            (ORDERS, "GET /a", true),
            (ORDERS, "GET /", false),
            (SHOP, "PUT /a", false),
        ],
    );
}

#[test]
fn http_fields_on_tcp_never_allow_and_in_a_deny_are_dropped() {
    for field in [
        "methods: [GET]",
        "notMethods: [GET]",
        "paths: [/a]",
        "notPaths: [/a]",
    ] {
        let rules = format!("rules: [{{to: [{{operation: {{{field}, ports: [80]}}}}]}}]");
        check(&for_invoices("p", &rules), &[(ORDERS, "TCP", false)]);
        let allow = for_invoices("allow", "rules: [{}]");
        let deny = for_invoices("deny", &format!("action: DENY, {rules}"));
        check(&format!("{allow}{deny}"), &[(ORDERS, "TCP", false)]);
        let snapshot = snapshot(&["invoices"], &format!("{allow}{deny}"));
        assert!(
            verdict(&snapshot, ORDERS, 81, "TCP").allowed,
            "other ports are not meant by {field}"
        );
    }
    check(
        &for_invoices("p", "rules: [{from: [{source: {namespaces: [default]}}]}]"),
        &[(ORDERS, "TCP", true)],
    );
}

#[test]
fn a_policy_protects_its_targets_or_its_namespace_or_from_the_system_namespace_the_mesh() {
    let allow_all = |metadata: &str, target: &str| {
        format!(
            "---\napiVersion: weft.dev/v1\nkind: AuthorizationPolicy\nmetadata: {metadata}\nspec: {{{target}rules: [{{}}]}}\n"
        )
    };
    let only_other = "targetRefs: [{kind: Service, name: other}], ";
    for (text, allowed) in [
        (allow_all("{name: a}", ""), true),
        (allow_all("{name: a, namespace: shop}", ""), false),
        (allow_all("{name: a, namespace: weft-system}", ""), true),
        (allow_all("{name: a}", only_other), false),
        (
            allow_all(
                "{name: a, namespace: shop}",
                "targetRefs: [{kind: Service, name: invoices}], ",
            ),
            false,
        ),
        (
            allow_all(
                "{name: a}",
                "targetRefs: [{kind: Service, name: other}, {kind: Service, name: invoices}], ",
            ),
            true,
        ),
    ] {
        check(&text, &[(ORDERS, "GET /", allowed)]);
    }
}

#[test]
fn a_caller_of_another_mesh_passes_only_where_its_trust_domain_is_named() {
    const PARTNER: &str = "spiffe://partner.example/ns/default/sa/orders";
    const NEAR: &str = "spiffe://partner.example.org/ns/default/sa/orders";
    for (rule, own, partner) in [
        ("{}", true, false),
        ("{to: [{operation: {ports: [80]}}]}", true, false),
        ("{from: [{source: {namespaces: [default]}}]}", true, false),
        ("{from: [{source: {principals: ['*']}}]}", true, false),
        (
            "{from: [{source: {principals: ['*/ns/default/sa/orders']}}]}",
            true,
            false,
        ),
        ("{from: [{source: {notPrincipals: ['x/*']}}]}", true, false),
        (
            "{from: [{source: {principals: ['partner.example/*']}}]}",
            false,
            true,
        ),
        (
            "{from: [{source: {principals: ['spiffe://partner.example/ns/default/sa/orders']}}]}",
            false,
            true,
        ),
        (
            "{from: [{source: {principals: ['partner.example/*'], namespaces: [shop]}}]}",
            false,
            false,
        ),
        (
            "{from: [{source: {principals: ['*', 'partner.example/ns/shop/*']}}]}",
            true,
            false,
        ),
    ] {
        let yaml = for_invoices("a", &format!("rules: [{rule}]"));
        check(
            &yaml,
            &[
                (ORDERS, "GET /", own),
                (ORDERS, "TCP", own),
                (PARTNER, "GET /", partner),
                (PARTNER, "TCP", partner),
                (NEAR, "GET /", false),
            ],
        );
    }
    // A refusal needs no naming.
    let allowed = for_invoices(
        "a",
        "rules: [{from: [{source: {principals: ['partner.example/*']}}]}]",
    );
    for denied in ["{}", "{from: [{source: {namespaces: [default]}}]}"] {
        let deny = for_invoices("b", &format!("action: DENY, rules: [{denied}]"));
        check(&format!("{allowed}{deny}"), &[(PARTNER, "GET /", false)]);
    }
}
