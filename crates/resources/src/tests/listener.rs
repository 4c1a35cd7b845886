//! Rules of `OutboundListener`.

use super::{error_at, one};
use crate::Resource;

fn listener(spec: &str) -> String {
    format!(
        "apiVersion: weft.dev/v1\nkind: OutboundListener\nmetadata: {{name: db, namespace: shop}}\nspec: {spec}\n"
    )
}

#[test]
fn a_listener_is_read() {
    let text = listener(
        "{workload: {service: orders}, address: '127.0.0.1:5432', backend: {name: db, port: 5432}}",
    );
    let Resource::OutboundListener(read) = one(&text) else {
        panic!("expected an OutboundListener");
    };
    let spec = read.spec;
    assert_eq!(
        spec.workload_service("shop").unwrap().to_string(),
        "orders.shop"
    );
    assert_eq!(spec.backend_service("shop").unwrap().to_string(), "db.shop");
    let _ = one(&listener(
        "{workload: {service: orders}, address: '[::1]:5432', backend: {name: db, namespace: data, port: 1}}",
    ));
}

#[test]
fn what_cannot_work_is_refused_at_its_field() {
    for (address, backend, needle, reason) in [
        (
            "0.0.0.0:5432",
            "{name: db, port: 1}",
            "0.0.0.0",
            "not a loopback address",
        ),
        (
            "10.1.2.3:5432",
            "{name: db, port: 1}",
            "10.1.2.3",
            "not a loopback address",
        ),
        ("127.0.0.1:0", "{name: db, port: 1}", "127", "port 0"),
        ("127.0.0.1", "{name: db, port: 1}", "127", "socket address"),
        (
            "localhost:1",
            "{name: db, port: 1}",
            "localhost",
            "socket address",
        ),
        (
            "127.0.0.1:1",
            "{name: db}",
            "{name: db}",
            "field 'port' is missing",
        ),
        ("127.0.0.1:1", "{name: db, port: 0}", "0}", "not a port"),
        ("127.0.0.1:1", "{name: DB, port: 1}", "DB", "is not a name"),
    ] {
        let text = listener(&format!(
            "\n  workload: {{service: orders}}\n  address: {address}\n  backend: {backend}"
        ));
        let error = error_at(&text, needle);
        assert!(error.reason.contains(reason), "{error}");
    }
}
