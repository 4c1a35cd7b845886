//! Compiles `AuthorizationPolicy`s: sorted by whom they protect.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use weft_resources::{
    Action, AuthorizationPolicy, AuthorizationRule, Pattern, SYSTEM_NAMESPACE, ServiceName,
};

/// All policies.
#[derive(Debug, Default)]
pub(crate) struct Authz {
    /// Those without targets in [`SYSTEM_NAMESPACE`]: for every service.
    pub(crate) mesh: Vec<Arc<Policy>>,
    /// Those without targets elsewhere: for every service of the namespace.
    pub(crate) by_namespace: BTreeMap<String, Vec<Arc<Policy>>>,
    /// Those with targets.
    pub(crate) by_service: BTreeMap<ServiceName, Vec<Arc<Policy>>>,
}

#[derive(Debug)]
pub(crate) struct Policy {
    pub(crate) action: Action,
    pub(crate) rules: Vec<PolicyRule>,
}

/// `from` AND `to`; in each, any. An empty list is no condition.
#[derive(Debug)]
pub(crate) struct PolicyRule {
    pub(crate) label: Arc<str>,
    pub(crate) from: Vec<Source>,
    pub(crate) to: Vec<Operation>,
}

/// Principals are without scheme.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) principals: Vec<Pattern>,
    pub(crate) not_principals: Vec<Pattern>,
    pub(crate) namespaces: Vec<Pattern>,
}

#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) methods: Vec<Pattern>,
    pub(crate) not_methods: Vec<Pattern>,
    pub(crate) paths: Vec<Pattern>,
    pub(crate) not_paths: Vec<Pattern>,
    pub(crate) ports: Vec<u16>,
}

impl Authz {
    pub(super) fn add(&mut self, key: &str, policy: &AuthorizationPolicy) {
        let namespace = &policy.metadata.namespace;
        let rules = policy.spec.rules.iter().enumerate();
        let compiled = Arc::new(Policy {
            action: policy.spec.action,
            rules: rules
                .map(|(index, rule)| PolicyRule::new(key, index, rule))
                .collect(),
        });
        let targets: BTreeSet<ServiceName> = policy
            .spec
            .target_refs
            .iter()
            .filter_map(|target| target.service(namespace))
            .collect();
        if !targets.is_empty() {
            for service in targets {
                self.by_service
                    .entry(service)
                    .or_default()
                    .push(compiled.clone());
            }
        } else if namespace == SYSTEM_NAMESPACE {
            self.mesh.push(compiled);
        } else {
            self.by_namespace
                .entry(namespace.clone())
                .or_default()
                .push(compiled);
        }
    }

    /// The policies that protect `service`, in a fixed order.
    pub(crate) fn policies<'a>(
        &'a self,
        service: &ServiceName,
    ) -> impl Iterator<Item = &'a Policy> + use<'a> {
        let of_service = self.by_service.get(service).into_iter().flatten();
        let of_namespace = self
            .by_namespace
            .get(service.namespace())
            .into_iter()
            .flatten();
        self.mesh
            .iter()
            .chain(of_namespace)
            .chain(of_service)
            .map(|policy| &**policy)
    }
}

impl PolicyRule {
    fn new(key: &str, index: usize, rule: &AuthorizationRule) -> Self {
        let from = rule.from.iter().map(|from| Source {
            principals: without_scheme(&from.source.principals),
            not_principals: without_scheme(&from.source.not_principals),
            namespaces: from.source.namespaces.clone(),
        });
        let to = rule.to.iter().map(|to| Operation {
            methods: to.operation.methods.clone(),
            not_methods: to.operation.not_methods.clone(),
            paths: to.operation.paths.clone(),
            not_paths: to.operation.not_paths.clone(),
            ports: to.operation.ports.iter().map(|port| port.0).collect(),
        });
        Self {
            label: Arc::from(format!("{key}#{index}")),
            from: from.collect(),
            to: to.collect(),
        }
    }
}

/// Both forms, `spiffe://td/…` and Istio's `td/…`, become the latter.
fn without_scheme(patterns: &[Pattern]) -> Vec<Pattern> {
    let bare = |pattern: &Pattern| match pattern.as_str().strip_prefix("spiffe://") {
        Some(rest) => Pattern::new(rest).unwrap_or_else(|_| pattern.clone()),
        None => pattern.clone(),
    };
    patterns.iter().map(bare).collect()
}
