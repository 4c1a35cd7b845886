//! What only compiling finds, and what a snapshot holds.

use weft_resources::parse_yaml;

use super::{endpoint, endpoints, http_route, service, snapshot};
use crate::{PortProtocol, Snapshot};

fn refusal(yaml: &str) -> (String, String) {
    let resources =
        parse_yaml(yaml, "t.yaml").expect("valid, as far as can be seen without compiling");
    let error = Snapshot::compile(1, &resources, endpoints(&[])).expect_err("does not compile");
    (error.key.expect("a key"), error.reason)
}

#[test]
fn a_regular_expression_over_the_size_limit_is_refused_with_the_resources_key() {
    for matches in [
        "{path: {type: RegularExpression, value: '(a{1000}){1000}'}}",
        "{headers: [{type: RegularExpression, name: h, value: '[0-9]{60000}'}]}",
        "{queryParams: [{type: RegularExpression, name: q, value: '((x{99}){99}){99}'}]}",
    ] {
        let good = http_route("default/a-good-one", &[("{}", "one")]);
        let (key, reason) = refusal(&format!(
            "{good}{}",
            http_route("shop/r", &[(matches, "one")])
        ));
        assert_eq!(key, "HTTPRoute/shop/r");
        assert!(
            reason.contains("compiles to more than 262144 bytes"),
            "{reason}"
        );
    }
}

#[test]
fn a_path_that_can_never_match_is_refused() {
    let (key, reason) = refusal(&http_route(
        "default/r",
        &[("{path: {value: '/a%5Cb'}}", "one")],
    ));
    assert_eq!(key, "HTTPRoute/default/r");
    assert!(reason.contains("can never match"), "{reason}");
}

#[test]
fn ordinary_regular_expressions_are_within_the_limit() {
    for value in [
        "/api/v[0-9]+/users/\\d+(/.*)?",
        "/[a-z0-9]{8}-[a-z0-9]{4}-[a-z0-9]{4}/x",
        "(?i)/a.*b.*c.*",
    ] {
        let matches = format!("{{path: {{type: RegularExpression, value: '{value}'}}}}");
        let _ = snapshot(
            &["invoices"],
            &http_route("default/r", &[(&matches, "one")]),
        );
    }
}

fn listener(name: &str, workload: &str, address: &str) -> String {
    format!(
        "---\napiVersion: weft.dev/v1\nkind: OutboundListener\nmetadata: {{name: {name}}}\nspec: \
         {{workload: {{service: {workload}}}, address: '{address}', backend: {{name: db, port: 5432}}}}\n"
    )
}

#[test]
fn two_listeners_of_a_workload_cannot_have_one_address() {
    let (key, reason) = refusal(&format!(
        "{}{}",
        listener("b", "orders", "127.0.0.1:5432"),
        listener("a", "orders", "127.0.0.1:5432")
    ));
    assert_eq!(key, "OutboundListener/default/b");
    assert_eq!(
        reason,
        "127.0.0.1:5432 is the address of OutboundListener/default/a already"
    );
}

#[test]
fn listeners_are_found_by_their_workload() {
    let text = format!(
        "{}{}{}",
        listener("c", "orders", "127.0.0.1:5433"),
        listener("a", "orders", "127.0.0.1:5432"),
        listener("b", "other", "127.0.0.1:5432")
    );
    let snapshot = snapshot(&[], &text);
    let orders = service("orders");
    let found: Vec<&str> = snapshot
        .listeners_of(&orders)
        .map(|listener| &*listener.key)
        .collect();
    assert_eq!(
        found,
        ["OutboundListener/default/a", "OutboundListener/default/c"]
    );
    assert_eq!(snapshot.listeners()[0].backend, service("db"));
    assert_eq!(snapshot.listeners()[0].port, 5432);
}

#[test]
fn endpoints_change_without_compiling_again() {
    let before = snapshot(
        &["invoices", "one"],
        &http_route("default/r", &[("{}", "one")]),
    );
    let after = Snapshot::assemble(
        8,
        before.config().clone(),
        endpoints(&["invoices", "one", "two"]),
    );
    assert!(after.knows(&service("two")) && !before.knows(&service("two")));
    assert_eq!((before.revision, after.revision), (7, 8));
    assert!(std::sync::Arc::ptr_eq(before.config(), after.config()));
}

#[test]
fn endpoints_are_in_order_and_only_those_that_serve_the_port() {
    let mut other = endpoint("a", "b");
    other.ports = vec![(80, PortProtocol::Tcp), (90, PortProtocol::Tcp)];
    let list = vec![endpoint("a", "c"), other, endpoint("a", "a")];
    let config = snapshot(&[], "").config().clone();
    let snapshot = Snapshot::assemble(1, config, [(service("a"), list)].into());
    let names = |port| {
        let endpoints = snapshot.endpoints(&service("a"), port);
        endpoints
            .map(|endpoint| endpoint.instance.to_string())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(80), ["a.default-a", "a.default-c"]);
    assert_eq!(names(90), ["a.default-b"]);
    assert!(names(91).is_empty());
    assert_eq!(
        snapshot.port_protocol(&service("a"), 80),
        Some(PortProtocol::Http)
    );
}

#[test]
fn a_service_without_instances_is_down_and_not_unknown() {
    let config = std::sync::Arc::new(crate::Config::compile(&[]).unwrap());
    let list = vec![endpoint("i1", "b")];
    let without = Snapshot::assemble(2, config, [(service("b"), list)].into());
    assert!(!without.knows(&service("a")), "the control");
    let instances = without.services[&service("b")].clone();
    let snapshot = without.with_registered([
        (
            service("a"),
            vec![(80, PortProtocol::Tcp), (80, PortProtocol::Http)],
        ),
        (service("b"), vec![]),
    ]);
    assert!(snapshot.knows(&service("a")));
    assert_eq!(
        snapshot.port_protocol(&service("a"), 80),
        Some(PortProtocol::Http)
    );
    assert_eq!(snapshot.endpoints(&service("a"), 80).count(), 0);
    assert_eq!(
        snapshot.services[&service("b")],
        instances,
        "instances say best what they serve"
    );
}

#[test]
fn a_service_of_another_mesh_is_there_until_the_own_mesh_has_it_live() {
    let text = "apiVersion: weft.dev/v1\nkind: ServiceEntry\nmetadata: {name: invoices}\nspec: \
                {identity: 'spiffe://partner.example/ns/shop/sa/bills', ports: [{port: 80}, {port: 81, protocol: tcp}], \
                endpoints: [{address: '203.0.113.7:1'}, {address: '203.0.113.8:1'}]}\n";
    let invoices = service("invoices");
    for services in [&[][..], &["invoices!"]] {
        let snapshot = snapshot(services, text);
        let there: Vec<String> = snapshot
            .endpoints(&invoices, 80)
            .map(|endpoint| format!("{} at {}", endpoint.spiffe_id, endpoint.addr))
            .collect();
        let id = "spiffe://partner.example/ns/shop/sa/bills";
        assert_eq!(
            there,
            [
                format!("{id} at 203.0.113.7:1"),
                format!("{id} at 203.0.113.8:1")
            ]
        );
        assert_eq!(
            snapshot.port_protocol(&invoices, 81),
            Some(PortProtocol::Tcp)
        );
        let at_home = snapshot.services[&invoices].at_home.as_ref().unwrap();
        assert_eq!(at_home.to_string(), "bills.shop");
    }
    let own = snapshot(&["invoices"], text);
    let there: Vec<_> = own
        .endpoints(&invoices, 80)
        .map(|endpoint| &*endpoint.instance)
        .collect();
    assert_eq!(there, ["invoices.default-a"]);
    assert_eq!(own.services[&invoices].at_home, None);
}
