//! What is fixed for the life of a mesh, kept in the store.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use weft_ca::{CaConfig, KeyType};
use weft_certs::{SpiffeId, TrustDomain, delegate_id};
use weft_resources::SYSTEM_NAMESPACE;

use crate::error::ControlError;
use crate::store::Store;

/// Where they are kept.
pub(crate) const SETTINGS: &str = "mesh/settings";

/// See the fields; written once by `weft init`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MeshSettings {
    pub(crate) trust_domain: TrustDomain,
    pub(crate) leaf_ttl_s: u64,
    pub(crate) issuing_ttl_s: u64,
    pub(crate) root_ttl_s: u64,
    /// The longest life of a leaf; `None`: 24 hours, or a sixth of the issuing CA's life.
    #[serde(default)]
    pub(crate) max_leaf_ttl_s: Option<u64>,
    #[serde(default)]
    pub(crate) key_type: KeyType,
    /// Rate limit of issuance.
    #[serde(default = "certificates_per_s")]
    pub(crate) certificates_per_s: u32,
    /// The site that this node is the delegate of; `None`: it is a control node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) site: Option<String>,
}

fn certificates_per_s() -> u32 {
    crate::issue::CERTIFICATES_PER_S
}

impl MeshSettings {
    pub(crate) fn ca_config(&self) -> CaConfig {
        let mut config = CaConfig::new(self.trust_domain.clone());
        config.leaf_ttl = Duration::from_secs(self.leaf_ttl_s);
        config.issuing_ttl = Duration::from_secs(self.issuing_ttl_s);
        config.root_ttl = Duration::from_secs(self.root_ttl_s);
        config.max_leaf_ttl = match self.max_leaf_ttl_s {
            Some(seconds) => Duration::from_secs(seconds),
            None => config.max_leaf_ttl.min(config.issuing_ttl / 6),
        };
        config.key_type = self.key_type;
        config.min_leaf_ttl = config.min_leaf_ttl.min(config.leaf_ttl);
        config
    }

    /// This node's own identity.
    pub(crate) fn own_id(&self) -> SpiffeId {
        match &self.site {
            Some(site) => delegate_id(&self.trust_domain, site)
                .unwrap_or_else(|_| Self::control_of(&self.trust_domain)),
            None => Self::control_of(&self.trust_domain),
        }
    }

    /// The identity of a control node.
    pub(crate) fn control_of(trust_domain: &TrustDomain) -> SpiffeId {
        SpiffeId::for_service(trust_domain, SYSTEM_NAMESPACE, "control")
            .expect("both names are one path segment each")
    }

    /// Reads them; `None` if the store was never initialised.
    pub(crate) async fn load(store: &dyn Store) -> Result<Option<Self>, ControlError> {
        let Some(entry) = store.get(SETTINGS).await? else {
            return Ok(None);
        };
        serde_json::from_slice(&entry.value)
            .map(Some)
            .map_err(|error| ControlError::Damaged {
                what: format!("the mesh's settings cannot be read: {error}"),
            })
    }
}
