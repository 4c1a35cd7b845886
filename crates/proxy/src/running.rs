//! What a request reads once, at its start: the snapshot in force, and what is known of its endpoints.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use weft_policy::balance::{DialHealth, LoadView, PeakEwma, Readiness, pick};
use weft_policy::{Endpoint, PortProtocol, Snapshot};
use weft_resources::ServiceName;
use weft_telemetry::Edge;
use weft_transport::Target;

/// A snapshot with the endpoints made ready to be called. Never changed, only replaced whole; what is
/// learnt about an endpoint lives on in the next one.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) snapshot: Snapshot,
    services: BTreeMap<ServiceName, Upstream>,
}

/// A service that can be called.
#[derive(Debug)]
pub(crate) struct Upstream {
    ports: BTreeMap<u16, Port>,
    edges: Arc<Edges>,
}

/// One port of a service.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) protocol: PortProtocol,
    /// `service.namespace:port` as its sidecars know it: what travels as `:authority`.
    pub(crate) authority: Authority,
    /// The same as text.
    pub(crate) name: Arc<str>,
    /// The instances that serve it.
    instances: Vec<Arc<Instance>>,
}

/// The handles of this sidecar's edges to a service, made on first use.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    pub(crate) http: OnceLock<Edge>,
    pub(crate) tcp: OnceLock<Edge>,
}

/// One instance of a service.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: Arc<str>,
    pub(crate) target: Target,
    /// SPIFFE ID that it must have.
    pub(crate) id: Arc<str>,
    health: Mutex<Health>,
    pending: AtomicU32,
}

#[derive(Debug)]
struct Health {
    latency: PeakEwma,
    dial: DialHealth,
    /// The path to it is in trouble until then.
    avoided: Duration,
}

impl Running {
    /// Joins a snapshot with what `before` knew about the endpoints that stay. `now` is the time since
    /// the sidecar's start.
    pub(crate) fn new(snapshot: Snapshot, before: Option<&Self>, now: Duration) -> Self {
        let services = snapshot
            .services
            .iter()
            .map(|(name, service)| {
                let old = before.and_then(|before| before.services.get(name));
                let instances: Vec<_> = service
                    .endpoints
                    .iter()
                    .map(|endpoint| Instance::kept_or_new(endpoint, old, now))
                    .collect();
                (name.clone(), Upstream::new(name, service, &instances, old))
            })
            .collect();
        Self { snapshot, services }
    }

    /// The revision of the config in force.
    pub(crate) fn revision(&self) -> u64 {
        self.snapshot.revision
    }

    /// Prefers other instances to those at these addresses until then: the path to them is in trouble.
    pub(crate) fn avoid(&self, addrs: &BTreeSet<SocketAddr>, until: Duration) {
        let instances = self.services.values().flat_map(Upstream::instances);
        for instance in instances.filter(|instance| addrs.contains(&instance.target.addr)) {
            instance.health().avoided = until;
        }
    }

    /// A service that has been registered.
    pub(crate) fn upstream(&self, service: &ServiceName) -> Option<&Upstream> {
        self.services.get(service)
    }
}

impl Upstream {
    fn new(
        name: &ServiceName,
        service: &weft_policy::Service,
        instances: &[Arc<Instance>],
        old: Option<&Self>,
    ) -> Self {
        let port = |(port, protocol): (&u16, &PortProtocol)| {
            let serving = service.endpoints.iter().zip(instances);
            let there = format!("{}:{port}", service.at_home.as_ref().unwrap_or(name));
            let made = Port {
                protocol: *protocol,
                authority: Authority::try_from(there)
                    .expect("names of services and a port make an authority"),
                name: format!("{name}:{port}").into(),
                instances: serving
                    .filter(|(endpoint, _)| endpoint.ports.contains(&(*port, *protocol)))
                    .map(|(_, instance)| Arc::clone(instance))
                    .collect(),
            };
            (*port, made)
        };
        Self {
            ports: service.ports.iter().map(port).collect(),
            edges: old.map_or_else(Arc::default, |old| Arc::clone(&old.edges)),
        }
    }

    pub(crate) fn port(&self, port: u16) -> Option<&Port> {
        self.ports.get(&port)
    }

    pub(crate) fn edges(&self) -> &Edges {
        &self.edges
    }

    fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.ports.values().flat_map(|port| &port.instances)
    }
}

impl Port {
    /// The instance to try next: the better of two drawn among those not in `tried`; if `again`, one of
    /// those when there is no other.
    pub(crate) fn pick(
        &self,
        tried: &[Arc<Instance>],
        again: bool,
        now: Duration,
        draw: (u64, u64),
    ) -> Option<Arc<Instance>> {
        let serving = self.instances.as_slice();
        if let ([only], []) = (serving, tried) {
            return Some(Arc::clone(only));
        }
        let views: Vec<LoadView> = serving
            .iter()
            .map(|instance| instance.view(tried, again, now))
            .collect();
        pick(&views, draw).map(|index| Arc::clone(&serving[index]))
    }
}

impl Instance {
    fn kept_or_new(endpoint: &Endpoint, old: Option<&Upstream>, now: Duration) -> Arc<Self> {
        let target = Target::new(endpoint.addr, endpoint.spiffe_id.clone());
        let kept = old.and_then(|old| {
            old.instances()
                .find(|known| known.name == endpoint.instance && known.target == target)
        });
        if let Some(kept) = kept {
            return Arc::clone(kept);
        }
        Arc::new(Self {
            name: Arc::clone(&endpoint.instance),
            id: endpoint.spiffe_id.as_str().into(),
            target,
            health: Mutex::new(Health {
                latency: PeakEwma::new(now),
                dial: DialHealth::default(),
                avoided: Duration::ZERO,
            }),
            pending: AtomicU32::new(0),
        })
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        // Plain numbers: whole after every statement.
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self, tried: &[Arc<Self>], again: bool, now: Duration) -> LoadView {
        let health = self.health();
        let visited = tried.iter().any(|tried| std::ptr::eq(&**tried, self));
        LoadView {
            load: health
                .latency
                .load(now, self.pending.load(Ordering::Relaxed)),
            readiness: match (visited, again) {
                (false, _) if now < health.avoided => Readiness::LastResort,
                (false, _) => health.dial.readiness(now),
                (true, true) => Readiness::LastResort,
                (true, false) => Readiness::Excluded,
            },
        }
    }

    /// Counts a request as under way until the guard goes.
    pub(crate) fn begin(self: &Arc<Self>) -> Pending {
        self.pending.fetch_add(1, Ordering::Relaxed);
        Pending(Arc::clone(self))
    }

    /// An answer's head came after `rtt`.
    pub(crate) fn answered(&self, rtt: Duration, now: Duration) {
        let mut health = self.health();
        health.latency.observe(rtt, now);
        health.dial.succeeded();
    }

    /// It broke off, or answered with a failure of weft's own.
    pub(crate) fn failed(&self, now: Duration) {
        self.health().latency.observe_failure(now);
    }

    /// It could not be reached.
    pub(crate) fn unreachable(&self, now: Duration, draw: u64) {
        let mut health = self.health();
        health.latency.observe_failure(now);
        health.dial.failed(now, draw);
    }
}

/// A request under way to an instance.
#[derive(Debug)]
pub(crate) struct Pending(Arc<Instance>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Ordering::Relaxed);
    }
}
