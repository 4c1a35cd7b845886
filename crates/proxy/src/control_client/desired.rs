//! The map that the control node pushes, as it stands after each update.

use std::collections::BTreeMap;

use serde_json::Value;
use weft_resources::Resource;
use weft_wire::{EndpointRecord, Group, ResourcePath, ServiceRecord, Update};

/// Keys with their values, of which a sidecar understands those of this protocol version.
#[derive(Debug, Clone, Default)]
pub(crate) struct Desired {
    /// Revision after the last update.
    pub(crate) revision: u64,
    keys: BTreeMap<ResourcePath, Value>,
}

/// A resource that this sidecar cannot use, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unusable {
    /// `kind/namespace/name`, where one resource is at fault.
    pub(crate) key: Option<String>,
    /// Why, in one sentence.
    pub(crate) reason: String,
}

impl Desired {
    /// From a saved map.
    pub(crate) fn saved(revision: u64, keys: &BTreeMap<String, Value>) -> Self {
        let mut desired = Self::default();
        desired.apply(Update {
            revision,
            whole: true,
            set: keys.clone(),
            unset: Vec::new(),
        });
        desired
    }

    /// Takes a change in. Keys of no known form come from a later version and are skipped.
    pub(crate) fn apply(&mut self, update: Update) {
        self.revision = update.revision;
        if update.whole {
            self.keys.clear();
        }
        for key in &update.unset {
            if let Ok(path) = key.parse::<ResourcePath>() {
                self.keys.remove(&path);
            }
        }
        for (key, value) in update.set {
            match key.parse::<ResourcePath>() {
                Ok(path) => drop(self.keys.insert(path, value)),
                Err(error) => tracing::debug!(%error, "skipped"),
            }
        }
    }

    /// The keys of one group with their values.
    fn group(&self, group: Group) -> impl Iterator<Item = (&ResourcePath, &Value)> {
        self.keys
            .iter()
            .filter(move |(path, _)| path.group() == group)
    }

    /// The `config/` keys, to be kept as running config.
    pub(crate) fn config(&self) -> Config {
        Config {
            revision: self.revision,
            keys: self
                .group(Group::Config)
                .map(|(path, value)| (path.clone(), value.clone()))
                .collect(),
        }
    }

    /// The endpoints that can be read, with namespace, service and instance.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = (&str, &str, &str, EndpointRecord)> {
        self.group(Group::Endpoint).filter_map(|(path, value)| {
            let ResourcePath::Endpoint {
                namespace,
                service,
                instance,
            } = path
            else {
                return None;
            };
            match serde_json::from_value(value.clone()) {
                Ok(record) => Some((namespace.as_str(), service.as_str(), instance.as_str(), record)),
                Err(error) => {
                    tracing::warn!(key = %path, %error, "an endpoint cannot be read and is not used");
                    None
                }
            }
        })
    }

    /// The registered services that can be read, with namespace and name.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&str, &str, ServiceRecord)> {
        self.group(Group::Service).filter_map(|(path, value)| {
            let ResourcePath::Service { namespace, service } = path else {
                return None;
            };
            let record = serde_json::from_value(value.clone()).ok()?;
            Some((namespace.as_str(), service.as_str(), record))
        })
    }

    /// The trust bundles: trust domain to JWK set.
    pub(crate) fn trust(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.group(Group::Trust)
            .filter_map(|(path, value)| match path {
                ResourcePath::Trust { trust_domain } => Some((trust_domain.as_str(), value)),
                _ => None,
            })
    }

    /// What is revoked: trust domain to list.
    pub(crate) fn revoked(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.group(Group::Trust)
            .filter_map(|(path, value)| match path {
                ResourcePath::Revoked { trust_domain } => Some((trust_domain.as_str(), value)),
                _ => None,
            })
    }

    /// What to save, with this config in force: trust has its own file.
    pub(crate) fn to_save(&self, config: &Config) -> BTreeMap<String, Value> {
        self.group(Group::Endpoint)
            .chain(self.group(Group::Service))
            .chain(&config.keys)
            .map(|(path, value)| (path.to_string(), value.clone()))
            .collect()
    }
}

/// The `config/` part of one revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Config {
    /// The revision that brought it.
    pub(crate) revision: u64,
    keys: BTreeMap<ResourcePath, Value>,
}

impl Config {
    /// The resources of the config.
    ///
    /// # Errors
    /// The first one that this version does not know or that is not valid.
    pub(crate) fn resources(&self) -> Result<Vec<Resource>, Unusable> {
        self.keys
            .iter()
            .map(|(path, value)| {
                Resource::from_json(value).map_err(|errors| Unusable {
                    key: Some(resource_key(path)),
                    reason: errors
                        .first()
                        .map_or_else(|| "it is not valid".to_owned(), |error| error.to_string()),
                })
            })
            .collect()
    }

    /// Whether both hold the same resources.
    pub(crate) fn same_resources(&self, other: &Self) -> bool {
        self.keys == other.keys
    }
}

/// `config/HTTPRoute/default/a` as operators write it: `HTTPRoute/default/a`.
fn resource_key(path: &ResourcePath) -> String {
    let text = path.to_string();
    text.strip_prefix("config/").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn update(revision: u64, whole: bool, set: &[(&str, Value)], unset: &[&str]) -> Update {
        Update {
            revision,
            whole,
            set: set
                .iter()
                .map(|(key, value)| ((*key).to_owned(), value.clone()))
                .collect(),
            unset: unset.iter().map(|key| (*key).to_owned()).collect(),
        }
    }

    fn endpoint() -> Value {
        json!({"spiffe_id": "spiffe://weft.local/ns/default/sa/invoices",
               "mesh_addr": "127.0.0.1:15008", "ports": [{"port": 80, "protocol": "http"}]})
    }

    #[test]
    fn changes_add_and_remove_and_a_whole_one_forgets_the_rest() {
        let mut desired = Desired::default();
        desired.apply(update(
            1,
            true,
            &[
                ("endpoint/default/invoices/a", endpoint()),
                ("endpoint/default/invoices/b", endpoint()),
                ("later/kind/of/key", json!(1)),
            ],
            &[],
        ));
        assert_eq!(desired.endpoints().count(), 2);
        desired.apply(update(2, false, &[], &["endpoint/default/invoices/a"]));
        let left: Vec<_> = desired
            .endpoints()
            .map(|(_, _, instance, _)| instance.to_owned())
            .collect();
        assert_eq!((desired.revision, left), (2, vec!["b".to_owned()]));
        desired.apply(update(3, true, &[], &[]));
        assert_eq!(desired.endpoints().count(), 0);
    }

    #[test]
    fn an_unknown_kind_is_named_by_its_key() {
        let mut desired = Desired::default();
        let later = json!({"apiVersion": "weft.dev/v9", "kind": "Teleport",
                           "metadata": {"name": "x", "namespace": "default"}, "spec": {}});
        desired.apply(update(
            1,
            true,
            &[("config/Teleport/default/x", later)],
            &[],
        ));
        let error = desired.config().resources().unwrap_err();
        assert_eq!(error.key.as_deref(), Some("Teleport/default/x"));
        assert!(!error.reason.is_empty());
    }

    #[test]
    fn what_is_saved_is_the_running_config_with_the_newest_endpoints() {
        let mut desired = Desired::default();
        desired.apply(update(
            1,
            true,
            &[("config/HTTPRoute/default/good", json!(1))],
            &[],
        ));
        let running = desired.config();
        desired.apply(update(
            2,
            false,
            &[
                ("config/HTTPRoute/default/bad", json!(2)),
                ("endpoint/default/invoices/a", endpoint()),
                ("trust/weft.local", json!({})),
            ],
            &[],
        ));
        let saved = desired.to_save(&running);
        let keys: Vec<&str> = saved.keys().map(String::as_str).collect();
        assert_eq!(
            keys,
            [
                "config/HTTPRoute/default/good",
                "endpoint/default/invoices/a"
            ]
        );
        let again = Desired::saved(1, &saved);
        assert!(again.config().same_resources(&running));
    }
}
