//! The parts of weft that every request, push or join goes through, each as a function that does it once.
//!
//! Included by the program (instruction counts, the report) and by `cargo bench` (times).

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use weft_ca::{Authority, CaConfig, MemoryKeyStore, make_csr};
use weft_certs::{BundleSet, SpiffeId, TrustDomain, X509Svid};
use weft_policy::balance::{LoadView, Readiness, pick};
use weft_policy::{
    Config, Endpoint, PortProtocol, RequestHead, Snapshot, authorize, normalize_path, route,
};
use weft_resources::{Resource, ServiceName};

/// Does a scenario once.
pub(crate) type Once = Box<dyn FnMut()>;

/// A part, by name.
pub(crate) struct Scenario {
    /// Its name in tables and in the baseline.
    pub(crate) name: &'static str,
    /// Whether its instruction count depends on the processor's features: cryptography does.
    pub(crate) by_processor: bool,
    /// Makes it ready.
    pub(crate) make: fn() -> Once,
}

/// All of them.
pub(crate) const ALL: &[Scenario] = &[
    part("route match, 10 routes", || route_match(10)),
    part("route match, 1,000 routes", || route_match(1_000)),
    part("route match, 10,000 routes", || route_match(10_000)),
    part("path to normal form", normal_form),
    part("balancer pick of 100", balancer_pick),
    part("policy decision, 1,000 rules", policy_decision),
    part("header copy, 20 fields", header_copy),
    part("config compile, 100 routes", config_compile),
    part("snapshot swap, 10 endpoints", || snapshot_swap(10)),
    part("snapshot swap, 10,000 endpoints", || snapshot_swap(10_000)),
    Scenario {
        name: "SVID issue",
        by_processor: true,
        make: svid_issue,
    },
    Scenario {
        name: "SVID verify",
        by_processor: true,
        make: svid_verify,
    },
];

const fn part(name: &'static str, make: fn() -> Once) -> Scenario {
    Scenario {
        name,
        by_processor: false,
        make,
    }
}

fn invoices() -> ServiceName {
    ServiceName::new("default", "invoices").expect("a valid name")
}

fn id(name: &str) -> SpiffeId {
    let text = format!("spiffe://weft.local/ns/default/sa/{name}");
    SpiffeId::parse(&text).expect("a valid identity")
}

fn endpoint(index: usize) -> Endpoint {
    let port = u16::try_from(index % 60_000).unwrap_or(0) + 1;
    Endpoint {
        instance: Arc::from(format!("invoices-{index}")),
        spiffe_id: id("invoices"),
        addr: SocketAddr::from(([10, 0, 0, 1], port)),
        ports: vec![(80, PortProtocol::Http)],
    }
}

fn endpoints(count: usize) -> BTreeMap<ServiceName, Vec<Endpoint>> {
    BTreeMap::from([(invoices(), (0..count).map(endpoint).collect())])
}

fn resource(json: &Value) -> Resource {
    Resource::from_json(json).unwrap_or_else(|errors| panic!("{errors:?} in {json}"))
}

fn routes(count: usize) -> Vec<Resource> {
    let route = |index: usize| {
        resource(&json!({
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": format!("route-{index}")},
            "spec": {
                "parentRefs": [{"kind": "Service", "group": "", "name": "invoices"}],
                "rules": [{
                    "matches": [{"path": {"type": "PathPrefix", "value": format!("/part-{index}")}}],
                    "backendRefs": [{"kind": "Service", "name": "invoices", "port": 80}],
                }],
            },
        }))
    };
    (0..count).map(route).collect()
}

fn snapshot(resources: &[Resource], endpoints: BTreeMap<ServiceName, Vec<Endpoint>>) -> Snapshot {
    Snapshot::compile(1, resources, endpoints).unwrap_or_else(|error| panic!("{error:?}"))
}

/// The route in the middle of so many, with a request as a browser sends it.
fn route_match(count: usize) -> Once {
    let snapshot = snapshot(&routes(count), endpoints(1));
    let (headers, service) = (headers(), invoices());
    let path = format!("/part-{}/list", count / 2);
    Box::new(move || {
        let head = RequestHead::new(&Method::GET, &path, Some("page=2"), &headers);
        let head = head.expect("a path in normal form");
        let decision = route(&snapshot, "default", &service, 80, &head);
        black_box(decision).expect("a route");
    })
}

fn normal_form() -> Once {
    Box::new(|| {
        let path = normalize_path(black_box("/a/./b/%7Euser/../c/d/list")).expect("a path");
        black_box(path);
    })
}

fn balancer_pick() -> Once {
    let view = |index: u32| LoadView {
        load: f64::from(index % 7),
        readiness: if index.is_multiple_of(10) {
            Readiness::LastResort
        } else {
            Readiness::Ready
        },
    };
    let views: Vec<LoadView> = (0..100).map(view).collect();
    let mut draw = 1_u64;
    Box::new(move || {
        draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        black_box(pick(&views, (draw, draw.rotate_left(32)))).expect("one is ready");
    })
}

/// The last of a thousand rules allows the call.
fn policy_decision() -> Once {
    let rule = |index: usize| {
        let principal = match index {
            999 => id("orders").to_string(),
            _ => id(&format!("caller-{index}")).to_string(),
        };
        json!({
            "from": [{"source": {"principals": [principal]}}],
            "to": [{"operation": {"paths": [format!("/part-{index}/*")], "methods": ["GET"]}}],
        })
    };
    let policy = |index: usize| {
        let rules: Vec<Value> = (index * 10..index * 10 + 10).map(rule).collect();
        resource(&json!({
            "apiVersion": "weft.dev/v1",
            "kind": "AuthorizationPolicy",
            "metadata": {"name": format!("policy-{index:03}")},
            "spec": {"targetRefs": [{"kind": "Service", "name": "invoices"}], "rules": rules},
        }))
    };
    let policies: Vec<Resource> = (0..100).map(policy).collect();
    let snapshot = snapshot(&policies, endpoints(1));
    let (headers, service, caller) = (headers(), invoices(), id("orders"));
    Box::new(move || {
        let head = RequestHead::new(&Method::GET, "/part-999/list", None, &headers);
        let head = head.expect("a path in normal form");
        let verdict = authorize(
            &snapshot,
            caller.trust_domain(),
            &service,
            80,
            &caller,
            Some(&head),
        );
        assert!(black_box(verdict).allowed, "the last rule allows it");
    })
}

/// Twenty fields, as browsers and tracing send them.
fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for index in 0..20 {
        let name = HeaderName::try_from(format!("x-field-{index}")).expect("a name");
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers
}

fn header_copy() -> Once {
    let headers = headers();
    Box::new(move || {
        let mut copy = HeaderMap::with_capacity(headers.len());
        for (name, value) in black_box(&headers) {
            copy.append(name.clone(), value.clone());
        }
        black_box(copy);
    })
}

fn config_compile() -> Once {
    let resources = routes(100);
    Box::new(move || {
        black_box(Config::compile(&resources)).expect("compiles");
    })
}

/// An endpoint changes: what a sidecar does between the message and the next request.
fn snapshot_swap(count: usize) -> Once {
    let config = Arc::new(Config::compile(&routes(10)).expect("compiles"));
    let mut endpoints = endpoints(count);
    let first = Snapshot::assemble(1, Arc::clone(&config), endpoints.clone());
    let current = ArcSwap::from_pointee(first);
    let mut revision = 1;
    Box::new(move || {
        revision += 1;
        let place = usize::try_from(revision).unwrap_or(0) % count;
        if let Some(of_service) = endpoints.get_mut(&invoices()) {
            of_service[place] = endpoint(place);
        }
        let next = Snapshot::assemble(revision, Arc::clone(&config), endpoints.clone());
        let next = next.with_registered([(invoices(), vec![(80, PortProtocol::Http)])]);
        current.store(Arc::new(next));
    })
}

/// A moment at which the certificates here are good: 2027-01-15.
fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn authority() -> (Authority, StdRng) {
    let config = CaConfig::new(TrustDomain::parse("weft.local").expect("a trust domain"));
    let (keys, mut rng) = (MemoryKeyStore::new(), StdRng::from_seed([7; 32]));
    let journal = Authority::create(&config, &keys, now(), &mut rng).expect("an authority");
    let authority = Authority::load(config, journal, &keys).expect("an authority");
    (authority, rng)
}

fn svid_issue() -> Once {
    let (authority, mut rng) = authority();
    let (key, id) = (make_csr(None).expect("a request"), id("orders"));
    Box::new(move || {
        let issued = authority.issue(&key.csr, &id, None, now(), &mut rng);
        black_box(issued).expect("issued");
    })
}

fn svid_verify() -> Once {
    let (authority, mut rng) = authority();
    let key = make_csr(None).expect("a request");
    let issued = authority.issue(&key.csr, &id("orders"), None, now(), &mut rng);
    let svid = X509Svid::new(issued.expect("issued").chain, key.key).expect("an SVID");
    let bundles: BundleSet = [authority.bundle()].into_iter().collect();
    Box::new(move || {
        black_box(svid.validate(&bundles, now())).expect("vouched for");
    })
}
