//! Keys of what is pushed. Everything a sidecar knows is a map from such a key to a JSON value.

use std::fmt;
use std::str::FromStr;

/// What a pushed value belongs to. A sidecar may refuse `Config` (NACK) and still takes `Endpoint`
/// and `Trust`: discovery and trust are never held hostage by a bad route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// What an operator wrote: `config/<kind>/<namespace>/<name>`.
    Config,
    /// A live instance of a service: `endpoint/<namespace>/<service>/<instance>`.
    Endpoint,
    /// A service that has or had instances: `service/<namespace>/<service>`.
    Service,
    /// Whom to trust: `trust/<trust domain>`, `trust/<trust domain>/revoked`.
    Trust,
}

/// A key of the pushed map, in three parts or one, none empty, none with `/`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResourcePath {
    /// `config/<kind>/<namespace>/<name>`
    Config {
        /// Kind as the operator writes it, such as `HTTPRoute`.
        kind: String,
        /// Namespace of the resource.
        namespace: String,
        /// Name of the resource.
        name: String,
    },
    /// `endpoint/<namespace>/<service>/<instance>`
    Endpoint {
        /// Namespace of the service.
        namespace: String,
        /// Name of the service.
        service: String,
        /// Instance, unique in the mesh.
        instance: String,
    },
    /// `service/<namespace>/<service>`: a registered service, also while it has no instance. Sidecars before
    /// it skip it.
    Service {
        /// Namespace of the service.
        namespace: String,
        /// Name of the service.
        service: String,
    },
    /// `trust/<trust domain>`
    Trust {
        /// The trust domain without scheme.
        trust_domain: String,
    },
    /// `trust/<trust domain>/revoked`: what is revoked in it. Sidecars before it skip it.
    Revoked {
        /// The trust domain without scheme.
        trust_domain: String,
    },
}

/// A key that is of no known form. Sidecars skip such keys: they come from a later version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a key of this protocol version")]
pub struct KeyError(pub String);

impl ResourcePath {
    /// The group that the key belongs to.
    #[must_use]
    pub fn group(&self) -> Group {
        match self {
            Self::Config { .. } => Group::Config,
            Self::Endpoint { .. } => Group::Endpoint,
            Self::Service { .. } => Group::Service,
            Self::Trust { .. } | Self::Revoked { .. } => Group::Trust,
        }
    }
}

impl fmt::Display for ResourcePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config {
                kind,
                namespace,
                name,
            } => write!(f, "config/{kind}/{namespace}/{name}"),
            Self::Endpoint {
                namespace,
                service,
                instance,
            } => {
                write!(f, "endpoint/{namespace}/{service}/{instance}")
            }
            Self::Service { namespace, service } => write!(f, "service/{namespace}/{service}"),
            Self::Trust { trust_domain } => write!(f, "trust/{trust_domain}"),
            Self::Revoked { trust_domain } => write!(f, "trust/{trust_domain}/revoked"),
        }
    }
}

impl FromStr for ResourcePath {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let parts: Vec<&str> = text.split('/').collect();
        if parts.iter().any(|part| part.is_empty()) {
            return Err(KeyError(text.to_owned()));
        }
        match parts.as_slice() {
            ["config", kind, namespace, name] => Ok(Self::Config {
                kind: (*kind).to_owned(),
                namespace: (*namespace).to_owned(),
                name: (*name).to_owned(),
            }),
            ["endpoint", namespace, service, instance] => Ok(Self::Endpoint {
                namespace: (*namespace).to_owned(),
                service: (*service).to_owned(),
                instance: (*instance).to_owned(),
            }),
            ["service", namespace, service] => Ok(Self::Service {
                namespace: (*namespace).to_owned(),
                service: (*service).to_owned(),
            }),
            ["trust", trust_domain] => Ok(Self::Trust {
                trust_domain: (*trust_domain).to_owned(),
            }),
            ["trust", trust_domain, "revoked"] => Ok(Self::Revoked {
                trust_domain: (*trust_domain).to_owned(),
            }),
            _ => Err(KeyError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_round_trip_and_bad_ones_are_refused() {
        for text in [
            "config/HTTPRoute/default/invoices",
            "endpoint/default/invoices/a1",
            "service/default/invoices",
            "trust/weft.local",
            "trust/weft.local/revoked",
        ] {
            assert_eq!(text.parse::<ResourcePath>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "config",
            "config//a/b",
            "trust/a/b",
            "endpoint/a/b",
            "service/a",
            "service/a/b/c",
            "other/a/b/c",
        ] {
            assert!(text.parse::<ResourcePath>().is_err(), "{text}");
        }
    }
}
