//! Rules of `ServiceEntry`.

use super::{error_at, one};
use crate::{EntryProtocol, Resource};

fn entry(spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1\nkind: ServiceEntry\nmetadata: {{name: invoices, namespace: partner}}\nspec: {spec}\n"
    )
}

#[test]
fn an_entry_is_read() {
    let text = entry(
        "{identity: 'spiffe://partner.example/ns/default/sa/invoices', \
         ports: [{port: 80}, {port: 5432, protocol: tcp}], \
         endpoints: [{address: '203.0.113.7:15008'}, {address: '[2001:db8::7]:15008'}]}",
    );
    let Resource::ServiceEntry(read) = one(&text) else {
        panic!("expected a ServiceEntry");
    };
    assert_eq!(read.spec.ports[0].protocol, EntryProtocol::Http);
    assert_eq!(read.spec.ports[1].protocol, EntryProtocol::Tcp);
    assert_eq!(read.spec.endpoints.len(), 2);
}

#[test]
fn what_cannot_work_is_refused_at_its_field() {
    const WHO: &str = "spiffe://p.example/ns/a/sa/b";
    for (identity, ports, endpoints, needle, reason) in [
        (
            "https://p.example/ns/a/sa/b",
            "{port: 80}",
            "{address: '1.2.3.4:1'}",
            "'https",
            "expected spiffe://",
        ),
        (
            "spiffe://p.example/workload",
            "{port: 80}",
            "{address: '1.2.3.4:1'}",
            "'spiffe",
            "expected spiffe://",
        ),
        (
            "spiffe://P.example/ns/a/sa/b",
            "{port: 80}",
            "{address: '1.2.3.4:1'}",
            "'spiffe",
            "expected spiffe://",
        ),
        (
            "spiffe://p.example/ns/a/sa/b/c",
            "{port: 80}",
            "{address: '1.2.3.4:1'}",
            "'spiffe",
            "expected spiffe://",
        ),
        (WHO, "", "{address: '1.2.3.4:1'}", "[]", "1 to 64 ports"),
        (WHO, "{port: 80}", "", "[]", "1 to 256 endpoints"),
        (
            WHO,
            "{port: 80}, {port: 80, protocol: tcp}",
            "{address: '1.2.3.4:1'}",
            "[{port: 80}, ",
            "more than once",
        ),
        (
            WHO,
            "{port: 80}",
            "{address: '0.0.0.0:1'}",
            "'0.0.0.0",
            "cannot be called",
        ),
        (
            WHO,
            "{port: 80}",
            "{address: '1.2.3.4:0'}",
            "'1.2.3.4",
            "cannot be called",
        ),
        (
            WHO,
            "{port: 80}",
            "{address: 'partner.example:1'}",
            "'partner.example:1'",
            "socket address",
        ),
        (
            WHO,
            "{port: 80}",
            "{address: '1.2.3.4:1'}, {address: '1.2.3.4:1'}",
            "[{address: '1.2.3.4:1'}, ",
            "more than once",
        ),
    ] {
        let text = entry(&format!(
            "{{identity: '{identity}', ports: [{ports}], endpoints: [{endpoints}]}}"
        ));
        let error = error_at(&text, needle);
        assert!(error.reason.contains(reason), "{error}");
    }
}
