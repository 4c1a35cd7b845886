//! A resource of any kind: its envelope, its key, and its JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserializer};
use serde::ser::Serializer;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::authorization::AuthorizationPolicySpec;
use crate::error::{Checker, Problem, ResourceError, show_path};
use crate::http_route::HttpRouteSpec;
use crate::name::{DEFAULT_NAMESPACE, NameError, check_label, check_resource_name, shorten};
use crate::outbound_listener::OutboundListenerSpec;
use crate::service_entry::ServiceEntrySpec;

/// What an operator writes, of one of the kinds that weft knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// `HTTPRoute`
    HttpRoute(HttpRoute),
    /// `AuthorizationPolicy`
    AuthorizationPolicy(AuthorizationPolicy),
    /// `OutboundListener`
    OutboundListener(OutboundListener),
    /// `ServiceEntry`
    ServiceEntry(ServiceEntry),
}

/// Where HTTP requests for a service go.
pub type HttpRoute = Object<HttpRouteSpec>;
/// Who may call a service.
pub type AuthorizationPolicy = Object<AuthorizationPolicySpec>;
/// A local port that leads to a service.
pub type OutboundListener = Object<OutboundListenerSpec>;
/// See [`ServiceEntrySpec`].
pub type ServiceEntry = Object<ServiceEntrySpec>;

/// Metadata and what its kind says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<S> {
    /// Name, namespace, and what is attached to them.
    pub metadata: Metadata,
    /// What the kind is about.
    pub spec: S,
}

/// Name, namespace, and what is attached to them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Unique among the resources of its kind and namespace.
    pub name: String,
    /// Namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Kept and shown; weft itself does not read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Kept and shown; weft itself does not read them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

fn default_namespace() -> String {
    DEFAULT_NAMESPACE.to_owned()
}

/// Most labels, and most annotations, of one resource.
const MAX_LABELS: usize = 64;

impl Metadata {
    /// Of this name and namespace, nothing attached.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        }
    }

    fn check(&self, c: &mut Checker) {
        c.require("name", check_resource_name(&self.name));
        c.require("namespace", check_label(&self.namespace));
        for (key, map) in [("labels", &self.labels), ("annotations", &self.annotations)] {
            if map.len() > MAX_LABELS {
                c.problem_at(
                    key,
                    format!(
                        "has {} entries, at most {MAX_LABELS} are allowed",
                        map.len()
                    ),
                );
            }
        }
    }
}

/// The kinds of resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// `HTTPRoute`
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// `AuthorizationPolicy`
    AuthorizationPolicy,
    /// `OutboundListener`
    OutboundListener,
    /// `ServiceEntry`
    ServiceEntry,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 4] = [
        Self::HttpRoute,
        Self::AuthorizationPolicy,
        Self::OutboundListener,
        Self::ServiceEntry,
    ];

    /// As in the field `kind`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::HttpRoute => "HTTPRoute",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::OutboundListener => "OutboundListener",
            Self::ServiceEntry => "ServiceEntry",
        }
    }

    /// As in the field `apiVersion`.
    #[must_use]
    pub fn api_version(self) -> &'static str {
        match self {
            Self::HttpRoute => "gateway.networking.k8s.io/v1",
            Self::AuthorizationPolicy | Self::OutboundListener | Self::ServiceEntry => {
                "weft.dev/v1"
            }
        }
    }

    /// As people type it in a command: in any letter case, singular or plural.
    #[must_use]
    pub fn from_command(text: &str) -> Option<Self> {
        let lower = text.to_ascii_lowercase();
        Self::ALL.into_iter().find(|kind| {
            let singular = kind.as_str().to_ascii_lowercase();
            let plural = match singular.strip_suffix('y') {
                Some(stem) => format!("{stem}ies"),
                None => format!("{singular}s"),
            };
            lower == singular || lower == plural
        })
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A key that does not name a resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not three parts.
    #[error("'{0}' is not a key: expected kind/namespace/name")]
    Form(String),
    /// Of no kind that weft knows.
    #[error(
        "'{0}' is not a kind: known are HTTPRoute, AuthorizationPolicy, OutboundListener and ServiceEntry"
    )]
    Kind(String),
    /// A part is not a name.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// What tells a resource from every other. Shown as `HTTPRoute/default/invoices`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ResourceKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl FromStr for ResourceKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        let [kind, namespace, name] = parts[..] else {
            return Err(KeyError::Form(shorten(text)));
        };
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)
            .ok_or_else(|| KeyError::Kind(shorten(kind)))?;
        check_label(namespace)?;
        check_resource_name(name)?;
        Ok(Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    }
}

impl TryFrom<String> for ResourceKey {
    type Error = KeyError;

    fn try_from(text: String) -> Result<Self, KeyError> {
        text.parse()
    }
}

impl From<ResourceKey> for String {
    fn from(key: ResourceKey) -> Self {
        key.to_string()
    }
}

impl Resource {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::AuthorizationPolicy(_) => Kind::AuthorizationPolicy,
            Self::OutboundListener(_) => Kind::OutboundListener,
            Self::ServiceEntry(_) => Kind::ServiceEntry,
        }
    }

    /// Its metadata.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        match self {
            Self::HttpRoute(object) => &object.metadata,
            Self::AuthorizationPolicy(object) => &object.metadata,
            Self::OutboundListener(object) => &object.metadata,
            Self::ServiceEntry(object) => &object.metadata,
        }
    }

    /// What tells it from every other.
    #[must_use]
    pub fn key(&self) -> ResourceKey {
        let metadata = self.metadata();
        ResourceKey {
            kind: self.kind(),
            namespace: metadata.namespace.clone(),
            name: metadata.name.clone(),
        }
    }

    /// Checks every rule that its types cannot say. What comes from [`crate::parse_yaml`] or
    /// [`Self::from_json`] has passed.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn validate(&self) -> Result<(), Vec<ResourceError>> {
        let errors: Vec<_> = self
            .problems()
            .into_iter()
            .map(|problem| without_lines(show_path(&problem.path), problem.reason))
            .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors)
        }
    }

    pub(crate) fn problems(&self) -> Vec<Problem> {
        let mut c = Checker::default();
        c.field("metadata", |c| self.metadata().check(c));
        c.field("spec", |c| match self {
            Self::HttpRoute(object) => object.spec.check(c),
            Self::AuthorizationPolicy(object) => object.spec.check(c),
            Self::OutboundListener(object) => object.spec.check(c),
            Self::ServiceEntry(object) => object.spec.check(c),
        });
        c.into_problems()
    }

    /// As JSON, for the store and the wire.
    #[must_use]
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).expect("resources have string keys and finite numbers only")
    }

    /// As YAML, for people.
    ///
    /// # Errors
    /// The writer's reason, in words.
    pub fn to_yaml(&self) -> Result<String, String> {
        serde_saphyr::to_string(self).map_err(|error| error.to_string())
    }

    /// From JSON, checked.
    ///
    /// # Errors
    /// The first thing of the wrong shape, or else everything that breaks a rule.
    pub fn from_json(json: &Value) -> Result<Self, Vec<ResourceError>> {
        let tree = crate::node::Node::from_json(json).ok_or_else(|| {
            vec![without_lines(
                String::new(),
                "is nested too deeply".to_owned(),
            )]
        })?;
        crate::document::resource_from(&tree, "", 0)
    }
}

fn without_lines(path: String, reason: String) -> ResourceError {
    ResourceError {
        origin: String::new(),
        line: 0,
        column: 0,
        path,
        reason,
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Envelope<'a, T> {
            api_version: &'a str,
            kind: &'a str,
            metadata: &'a Metadata,
            spec: &'a T,
        }
        fn write<T: Serialize, S: Serializer>(
            kind: Kind,
            object: &Object<T>,
            serializer: S,
        ) -> Result<S::Ok, S::Error> {
            let envelope = Envelope {
                api_version: kind.api_version(),
                kind: kind.as_str(),
                metadata: &object.metadata,
                spec: &object.spec,
            };
            envelope.serialize(serializer)
        }
        let kind = self.kind();
        match self {
            Self::HttpRoute(object) => write(kind, object, serializer),
            Self::AuthorizationPolicy(object) => write(kind, object, serializer),
            Self::OutboundListener(object) => write(kind, object, serializer),
            Self::ServiceEntry(object) => write(kind, object, serializer),
        }
    }
}

/// As [`Resource::from_json`]; the error is the first of its errors.
impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Value::deserialize(deserializer)?;
        Self::from_json(&json).map_err(|errors| match errors.into_iter().next() {
            Some(error) => de::Error::custom(error),
            None => de::Error::custom("is not a resource"),
        })
    }
}
