//! The mesh profile of the Gateway API (GEP-1294): routes whose parent is a service.

use super::{Words, ask, http_route, outcome, service, snapshot};
use crate::{DEFAULT_RULE, PortProtocol, RouteError, choose_backend, route};

#[test]
fn without_a_route_the_service_itself_answers() {
    let snapshot = snapshot(&["invoices"], "");
    let decision = ask(&snapshot, "default", "GET /").unwrap();
    assert_eq!(&*decision.rule, DEFAULT_RULE);
    assert_eq!(
        choose_backend(&snapshot, &decision, 0),
        Ok((service("invoices"), 80))
    );
    assert_eq!((decision.timeout, decision.backend_timeout), (None, None));
}

#[test]
fn any_route_replaces_default_forwarding() {
    let snapshot = snapshot(
        &["invoices"],
        &http_route("default/r", &[("{path: {value: /a}}", "invoices")]),
    );
    assert_eq!(outcome(&snapshot, "default", "GET /a"), "invoices.default");
    let error = ask(&snapshot, "default", "GET /b").unwrap_err();
    assert_eq!(error, RouteError::NoMatch(service("invoices")));
    assert_eq!(
        (error.status(), error.proxy_status()),
        (404, "destination_not_found")
    );
}

#[test]
fn a_consumer_route_is_for_callers_of_its_namespace_and_replaces_the_producers() {
    let producer = http_route("default/p", &[("{path: {value: /a}}", "one")]);
    let consumer = http_route("shop/c", &[("{path: {value: /b}}", "two")]);
    let snapshot = snapshot(
        &["invoices", "one", "two"],
        &format!("{producer}{consumer}"),
    );
    for (caller, request, expected) in [
        ("default", "GET /a", "one.default"),
        ("default", "GET /b", "404"),
        ("other", "GET /a", "one.default"),
        ("shop", "GET /b", "two.default"),
        ("shop", "GET /a", "404"),
    ] {
        assert_eq!(
            outcome(&snapshot, caller, request),
            expected,
            "{request} by {caller}"
        );
    }
}

#[test]
fn a_consumer_route_alone_leaves_other_callers_at_the_default() {
    let snapshot = snapshot(
        &["invoices", "two"],
        &http_route("shop/c", &[("{path: {value: /b}}", "two")]),
    );
    assert_eq!(outcome(&snapshot, "shop", "GET /"), "404");
    assert_eq!(
        &*ask(&snapshot, "default", "GET /").unwrap().rule,
        DEFAULT_RULE
    );
}

#[test]
fn a_parent_port_limits_the_route_to_it() {
    let text = http_route("default/r", &[("{}", "one")])
        .replace("name: invoices}", "name: invoices, port: 81}");
    let snapshot = snapshot(&["invoices", "one"], &text);
    let request = Words::new("GET /");
    let rule = |port| {
        route(&snapshot, "x", &service("invoices"), port, &request.head())
            .unwrap()
            .rule
    };
    assert_eq!(
        (&*rule(80), &*rule(81)),
        (DEFAULT_RULE, "HTTPRoute/default/r#0")
    );
}

#[test]
fn hostnames_are_ignored() {
    let text = http_route("default/r", &[("{}", "one")])
        .replace("spec:\n", "spec:\n  hostnames: [example.com]\n");
    let snapshot = snapshot(&["invoices", "one"], &text);
    assert_eq!(
        outcome(&snapshot, "default", "GET / host=other.com"),
        "one.default"
    );
}

#[test]
fn a_service_with_a_route_need_not_be_registered() {
    let snapshot = snapshot(&["one"], &http_route("default/r", &[("{}", "one")]));
    let decision = ask(&snapshot, "default", "GET /").unwrap();
    assert_eq!(
        choose_backend(&snapshot, &decision, 0),
        Ok((service("one"), 80))
    );
    assert_eq!(
        snapshot.port_protocol(&service("invoices"), 9),
        Some(PortProtocol::Http)
    );
}

#[test]
fn traffic_to_a_backend_does_not_enter_its_routes() {
    let own = "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: own}\nspec:\n  \
               parentRefs: [{kind: Service, name: one}]\n  rules: [{backendRefs: [{name: two}]}]\n";
    let text = format!("{}{own}", http_route("default/r", &[("{}", "one")]));
    let snapshot = snapshot(&["invoices", "one", "two"], &text);
    let decision = ask(&snapshot, "default", "GET /").unwrap();
    assert_eq!(
        choose_backend(&snapshot, &decision, 0),
        Ok((service("one"), 80))
    );
}

#[test]
fn names_and_ports_that_mean_nothing_are_told_apart() {
    let snapshot = snapshot(&["invoices"], "");
    let request = Words::new("GET /");
    let error = |name: &str, port| {
        route(&snapshot, "default", &service(name), port, &request.head()).unwrap_err()
    };
    assert_eq!(
        error("nobody", 80),
        RouteError::NoSuchService(service("nobody"))
    );
    let service = service("invoices");
    assert_eq!(
        error("invoices", 82),
        RouteError::NoSuchPort {
            service: service.clone(),
            port: 82
        }
    );
    assert_eq!(
        error("invoices", 5432),
        RouteError::NotHttp {
            service,
            port: 5432
        }
    );
}
