//! Tests of whole decisions.

mod authorization;
mod balancing;
mod compiling;
mod gamma;
mod model;
mod outcomes;
mod retrying;
mod selection;

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, Method};
use weft_certs::SpiffeId;
use weft_resources::{ServiceName, parse_yaml};

use crate::{Endpoint, PortProtocol, RequestHead, RouteDecision, RouteError, Snapshot, route};

/// A snapshot of these resources, with one instance of each service: HTTP on 80 and 81, TCP on 5432. A service
/// written `name!` is registered and has no instance.
fn snapshot(services: &[&str], yaml: &str) -> Snapshot {
    let resources =
        parse_yaml(yaml, "t.yaml").unwrap_or_else(|errors| panic!("{errors:?}\n{yaml}"));
    Snapshot::compile(7, &resources, endpoints(services)).expect("compiles")
}

fn endpoints(services: &[&str]) -> BTreeMap<ServiceName, Vec<Endpoint>> {
    let of = |text: &&str| match text.strip_suffix('!') {
        Some(name) => (service(name), Vec::new()),
        None => (service(text), vec![endpoint(text, "a")]),
    };
    services.iter().map(of).collect()
}

fn endpoint(name: &str, instance: &str) -> Endpoint {
    let name = service(name);
    let id = format!(
        "spiffe://weft.local/ns/{}/sa/{}",
        name.namespace(),
        name.name()
    );
    Endpoint {
        instance: Arc::from(format!("{name}-{instance}")),
        spiffe_id: id.parse().expect("an id"),
        addr: "127.0.0.1:15008".parse().expect("an address"),
        ports: vec![
            (80, PortProtocol::Http),
            (81, PortProtocol::Http),
            (5432, PortProtocol::Tcp),
        ],
    }
}

/// `name` is in namespace `default`.
fn service(text: &str) -> ServiceName {
    ServiceName::parse_host(text, "default").expect(text).0
}

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).expect(text)
}

/// A request in words: `GET /path?query name=value name=value`.
struct Words {
    method: Method,
    path: String,
    query: Option<String>,
    headers: HeaderMap,
}

impl Words {
    fn new(text: &str) -> Self {
        let mut words = text.split(' ');
        let method = words.next().expect("a method").parse().expect("a method");
        let target = words.next().expect("a target");
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let mut headers = HeaderMap::new();
        for word in words {
            let (name, value) = word.split_once('=').expect("name=value");
            let name: http::HeaderName = name.parse().expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        Self {
            method,
            path: path.to_owned(),
            query,
            headers,
        }
    }

    fn head(&self) -> RequestHead<'_> {
        RequestHead::new(
            &self.method,
            &self.path,
            self.query.as_deref(),
            &self.headers,
        )
        .expect("a path with a normal form")
    }
}

/// Routes a request to `invoices.default:80`.
fn ask(snapshot: &Snapshot, caller: &str, request: &str) -> Result<RouteDecision, RouteError> {
    route(
        snapshot,
        caller,
        &service("invoices"),
        80,
        &Words::new(request).head(),
    )
}

/// The backend that the request goes to, or the error's status.
fn outcome(snapshot: &Snapshot, caller: &str, request: &str) -> String {
    match ask(snapshot, caller, request) {
        Ok(decision) => decision.backends[0].service.to_string(),
        Err(error) => error.status().to_string(),
    }
}

/// An `HTTPRoute` for `invoices.default`, whose rules are each `matches -> backend`, with `matches` in YAML's flow
/// form.
fn http_route(key: &str, rules: &[(&str, &str)]) -> String {
    let (namespace, name) = key.split_once('/').expect("namespace/name");
    let mut text = format!(
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\n\
         metadata: {{namespace: {namespace}, name: {name}}}\nspec:\n  parentRefs:\n  \
         - {{kind: Service, namespace: default, name: invoices}}\n  rules:\n"
    );
    for (matches, backend) in rules {
        text.push_str(&format!(
            "  - matches: [{matches}]\n    backendRefs: [{{namespace: default, name: {backend}}}]\n"
        ));
    }
    text
}
