//! Everything that a sidecar decides by, at one revision.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use weft_certs::SpiffeId;
use weft_resources::{Resource, ServiceName};

use crate::compile::{CompileError, Config};

/// Everything that a sidecar decides by, at one revision: never changed, only replaced whole. A request keeps
/// the one that it began with.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The revision that it is made of.
    pub revision: u64,
    /// The registered services.
    pub services: BTreeMap<ServiceName, Service>,
    config: Arc<Config>,
}

/// A registered service.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// What it serves. Where instances disagree about a port, HTTP goes before TCP.
    pub ports: BTreeMap<u16, PortProtocol>,
    /// Its live instances, in the order of their names. May be empty.
    pub endpoints: Vec<Endpoint>,
    /// What its sidecars know it as, if that is not its name here: a service of another mesh.
    pub at_home: Option<ServiceName>,
}

/// A live instance of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name, unique in the mesh.
    pub instance: Arc<str>,
    /// Whom a dialler must meet there.
    pub spiffe_id: SpiffeId,
    /// Where its sidecar listens (UDP, QUIC).
    pub addr: SocketAddr,
    /// What it serves.
    pub ports: Vec<(u16, PortProtocol)>,
}

/// How a port's traffic is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortProtocol {
    /// Request by request.
    Http,
    /// As byte streams.
    Tcp,
}

/// A local TCP port that leads to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSpec {
    /// Key of the resource that asks for it.
    pub key: Arc<str>,
    /// Whose sidecars open it.
    pub workload: ServiceName,
    /// Where.
    pub address: SocketAddr,
    /// Where its connections go.
    pub backend: ServiceName,
    /// To which port of it.
    pub port: u16,
}

impl Snapshot {
    /// Compiles `resources` and joins them with the live `endpoints`. A service that has a key in `endpoints`
    /// exists, also with none.
    ///
    /// # Errors
    /// [`CompileError`] if a resource is valid and cannot be used, such as a regular expression that compiles to
    /// more than the limit.
    pub fn compile(
        revision: u64,
        resources: &[Resource],
        endpoints: BTreeMap<ServiceName, Vec<Endpoint>>,
    ) -> Result<Self, CompileError> {
        let config = Config::compile(resources)?;
        Ok(Self::assemble(revision, Arc::new(config), endpoints))
    }

    /// Joins a compiled config with the live `endpoints`: for when only they have changed, or when a new config
    /// was refused and its endpoints were not. A service with live instances in this mesh goes before a
    /// `ServiceEntry` of its name.
    #[must_use]
    pub fn assemble(
        revision: u64,
        config: Arc<Config>,
        endpoints: BTreeMap<ServiceName, Vec<Endpoint>>,
    ) -> Self {
        let mut services: BTreeMap<_, _> = endpoints
            .into_iter()
            .map(|(name, endpoints)| (name, Service::new(endpoints)))
            .collect();
        for (name, entry) in &config.entries {
            let own = services.entry(name.clone()).or_default();
            if own.endpoints.is_empty() {
                *own = entry.clone();
            }
        }
        Self {
            revision,
            services,
            config,
        }
    }

    /// Adds the registered services that have no instance now: they are services that are down, not names that
    /// mean nothing.
    #[must_use]
    pub fn with_registered(
        mut self,
        registered: impl IntoIterator<Item = (ServiceName, Vec<(u16, PortProtocol)>)>,
    ) -> Self {
        for (name, ports) in registered {
            self.services.entry(name).or_insert_with(|| Service {
                ports: merged(ports),
                ..Service::default()
            });
        }
        self
    }

    /// The compiled config, to be used again with other endpoints.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.config
    }

    /// How a port of a service is carried. A service that is not registered but has a route is HTTP on every port
    /// that the route takes.
    #[must_use]
    pub fn port_protocol(&self, service: &ServiceName, port: u16) -> Option<PortProtocol> {
        match self.services.get(service) {
            Some(registered) => registered.ports.get(&port).copied(),
            None => self
                .config
                .routes_port(service, port)
                .then_some(PortProtocol::Http),
        }
    }

    /// Whether the name means anything: a registered service, or one that has a route.
    #[must_use]
    pub fn knows(&self, service: &ServiceName) -> bool {
        self.services.contains_key(service) || self.config.routes.contains_key(service)
    }

    /// The live instances that serve `port` of `service`, in the order of their names.
    pub fn endpoints<'s>(
        &'s self,
        service: &ServiceName,
        port: u16,
    ) -> impl Iterator<Item = &'s Endpoint> + use<'s> {
        let service = self.services.get(service);
        let protocol = service.and_then(|service| service.ports.get(&port).copied());
        service
            .into_iter()
            .flat_map(|service| &service.endpoints)
            .filter(move |endpoint| {
                endpoint
                    .ports
                    .iter()
                    .any(|(number, how)| *number == port && Some(*how) == protocol)
            })
    }

    /// The local ports that sidecars open, in the order of their resources' keys.
    #[must_use]
    pub fn listeners(&self) -> &[ListenerSpec] {
        &self.config.listeners
    }

    /// Those of them that the sidecars of `workload` open.
    pub fn listeners_of<'s>(
        &'s self,
        workload: &'s ServiceName,
    ) -> impl Iterator<Item = &'s ListenerSpec> {
        self.config
            .listeners
            .iter()
            .filter(move |listener| listener.workload == *workload)
    }
}

impl Service {
    pub(crate) fn new(mut endpoints: Vec<Endpoint>) -> Self {
        endpoints.sort_by(|a, b| a.instance.cmp(&b.instance));
        let ports = merged(endpoints.iter().flat_map(|e| e.ports.iter().copied()));
        Self {
            ports,
            endpoints,
            at_home: None,
        }
    }

    /// Says what its sidecars know it as.
    pub(crate) fn called(mut self, at_home: ServiceName) -> Self {
        self.at_home = Some(at_home);
        self
    }
}

/// One protocol for each port: HTTP goes before TCP.
fn merged(ports: impl IntoIterator<Item = (u16, PortProtocol)>) -> BTreeMap<u16, PortProtocol> {
    let mut merged = BTreeMap::new();
    for (port, protocol) in ports {
        let known = merged.entry(port).or_insert(protocol);
        *known = protocol.min(*known);
    }
    merged
}
