//! How resources name services.

use serde::{Deserialize, Serialize};

use crate::ServiceName;
use crate::error::Checker;
use crate::name::check_label;

/// The kind that references may have. The Gateway API knows more; each is refused by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum ServiceKind {
    /// A service of the mesh.
    #[default]
    Service,
}

/// A service whose traffic a route takes over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ParentRef {
    /// Empty or `core`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Service`. Required: the Gateway API's default is `Gateway`, which has no meaning here yet.
    pub kind: ServiceKind,
    /// Namespace of the service. Without it, the route's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the service.
    pub name: String,
    /// Only this port of the service. Without it, all its HTTP ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// A service that answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct BackendRef {
    /// Empty or `core`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Service`.
    #[serde(default)]
    pub kind: ServiceKind,
    /// Namespace of the service. Without it, the resource's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name of the service.
    pub name: String,
    /// Port of the service. Without it, the port that the caller named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Share of the requests: weight by the sum of weights. 0 takes none.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

/// Most that a weight may be (Gateway API).
const MAX_WEIGHT: u32 = 1_000_000;

/// A service that a policy is for, in the policy's namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TargetRef {
    /// Empty or `core`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// `Service`.
    pub kind: ServiceKind,
    /// Name of the service.
    pub name: String,
}

/// The service, if both names are valid (which a validated resource guarantees).
fn service(namespace: Option<&str>, own_namespace: &str, name: &str) -> Option<ServiceName> {
    ServiceName::new(namespace.unwrap_or(own_namespace), name).ok()
}

impl ParentRef {
    /// The service named, for a resource in `namespace`. `None` only if the resource is not valid.
    #[must_use]
    pub fn service(&self, namespace: &str) -> Option<ServiceName> {
        service(self.namespace.as_deref(), namespace, &self.name)
    }

    pub(crate) fn check(&self, c: &mut Checker) {
        check_group(c, self.group.as_deref());
        check_names(c, self.namespace.as_deref(), &self.name);
        check_port(c, self.port);
    }
}

impl BackendRef {
    /// The service named, for a resource in `namespace`. `None` only if the resource is not valid.
    #[must_use]
    pub fn service(&self, namespace: &str) -> Option<ServiceName> {
        service(self.namespace.as_deref(), namespace, &self.name)
    }

    pub(crate) fn check(&self, c: &mut Checker) {
        check_group(c, self.group.as_deref());
        check_names(c, self.namespace.as_deref(), &self.name);
        check_port(c, self.port);
        if self.weight > MAX_WEIGHT {
            c.problem_at(
                "weight",
                format!("{} is over the limit of {MAX_WEIGHT}", self.weight),
            );
        }
    }
}

impl TargetRef {
    /// The service named, for a policy in `namespace`. `None` only if the resource is not valid.
    #[must_use]
    pub fn service(&self, namespace: &str) -> Option<ServiceName> {
        service(None, namespace, &self.name)
    }

    pub(crate) fn check(&self, c: &mut Checker) {
        check_group(c, self.group.as_deref());
        check_names(c, None, &self.name);
    }
}

fn check_group(c: &mut Checker, group: Option<&str>) {
    if let Some(group) = group
        && !matches!(group, "" | "core")
    {
        c.problem_at(
            "group",
            format!("'{group}' is not the group of Service: leave it out, or write \"\" or core"),
        );
    }
}

pub(crate) fn check_names(c: &mut Checker, namespace: Option<&str>, name: &str) {
    if let Some(namespace) = namespace {
        c.require("namespace", check_label(namespace));
    }
    c.require("name", check_label(name));
}

pub(crate) fn check_port(c: &mut Checker, port: Option<u16>) {
    if port == Some(0) {
        c.problem_at("port", "0 is not a port: expected 1 to 65535");
    }
}
