//! Resources, as applied and as stored.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// `POST /v1/apply`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApplyRequest {
    /// Resources as JSON.
    pub resources: Vec<Value>,
}

/// `POST /v1/delete`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteRequest {
    /// `KIND/NAMESPACE/NAME` of each.
    pub keys: Vec<String>,
}

/// What became of one resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It is new.
    Created,
    /// It was there with other content.
    Updated,
    /// It was there already, the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// One resource of an apply or delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceChange {
    /// `kind/namespace/name`
    pub key: String,
    /// What became of it.
    pub action: Action,
}

/// Reply to an apply or delete.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApplyReply {
    /// Wait for this revision to know that all of it is in force. Where nothing changed: the one that
    /// last wrote any of the resources.
    pub revision: u64,
    /// One for each resource, in the order given.
    pub changes: Vec<ResourceChange>,
}

/// Narrows `GET /v1/resources`. Exact matches; `None` matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceFilter {
    /// Kind, such as `HTTPRoute`.
    pub kind: Option<String>,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
}

/// One stored resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceEntry {
    /// `kind/namespace/name`
    pub key: String,
    /// The revision that last wrote it.
    pub revision: u64,
    /// The resource as the operator wrote it.
    pub resource: Value,
}

/// Reply of `GET /v1/resources`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ResourceList {
    /// The store's revision at which this was true.
    pub revision: u64,
    /// In the order of their keys.
    pub resources: Vec<ResourceEntry>,
}
