//! From resources to what decisions are made with. Knows no endpoints: they change far more often.

mod authz;
mod entries;
mod listeners;
mod routes;

use std::collections::BTreeMap;
use std::sync::Arc;

use weft_resources::{Resource, ServiceName};

pub(crate) use authz::{Authz, Operation, Policy, PolicyRule, Source};
pub(crate) use routes::{Action, RouteSet, ServiceRoutes};

use crate::snapshot::{ListenerSpec, Service};

/// A resource that is valid and cannot be used. The config before it stays in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{reason}", key.as_ref().map(|key| format!("{key}: ")).unwrap_or_default())]
pub struct CompileError {
    /// Key of the resource, such as `HTTPRoute/default/invoices`.
    pub key: Option<String>,
    /// Why, in one sentence.
    pub reason: String,
}

impl CompileError {
    fn new(key: &str, reason: impl Into<String>) -> Self {
        Self {
            key: Some(key.to_owned()),
            reason: reason.into(),
        }
    }
}

/// What operators wrote, ready for decisions.
#[derive(Debug, Default)]
pub struct Config {
    pub(crate) routes: BTreeMap<ServiceName, ServiceRoutes>,
    pub(crate) authz: Authz,
    pub(crate) listeners: Vec<ListenerSpec>,
    /// Services of other meshes.
    pub(crate) entries: BTreeMap<ServiceName, Service>,
}

impl Config {
    /// Compiles resources that have passed [`Resource::validate`]. The order they come in has no effect.
    ///
    /// # Errors
    /// [`CompileError`] for the first resource, by key, that cannot be used.
    pub fn compile(resources: &[Resource]) -> Result<Self, CompileError> {
        let mut ordered: Vec<(Arc<str>, &Resource)> = resources
            .iter()
            .map(|resource| (Arc::from(resource.key().to_string()), resource))
            .collect();
        ordered.sort_by(|a, b| a.0.cmp(&b.0));
        let mut config = Self::default();
        for (key, resource) in ordered {
            if let Err(errors) = resource.validate() {
                let reason = errors.first().map(ToString::to_string).unwrap_or_default();
                return Err(CompileError::new(&key, reason));
            }
            match resource {
                Resource::HttpRoute(route) => routes::add(&mut config.routes, &key, route)?,
                Resource::AuthorizationPolicy(policy) => config.authz.add(&key, policy),
                Resource::OutboundListener(listener) => {
                    listeners::add(&mut config.listeners, &key, listener)?;
                }
                Resource::ServiceEntry(entry) => entries::add(&mut config.entries, &key, entry)?,
            }
        }
        for routes in config.routes.values_mut() {
            routes.sort();
        }
        Ok(config)
    }

    /// The routes that decide for a caller: its own namespace's, if there are any for this port, or else the
    /// service's namespace's.
    pub(crate) fn route_set(
        &self,
        service: &ServiceName,
        caller_namespace: &str,
        port: u16,
    ) -> Option<&RouteSet> {
        let routes = self.routes.get(service)?;
        let of = |namespace: &str| {
            routes
                .by_namespace
                .get(namespace)
                .filter(|set| set.covers(port))
        };
        of(caller_namespace).or_else(|| of(service.namespace()))
    }

    /// Whether any namespace has a route for this port.
    pub(crate) fn routes_port(&self, service: &ServiceName, port: u16) -> bool {
        self.routes
            .get(service)
            .is_some_and(|routes| routes.by_namespace.values().any(|set| set.covers(port)))
    }
}
