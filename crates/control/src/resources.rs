//! What operators write: validated as a whole with the data plane's own compiler, then stored in one step.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use serde_json::Value;
use weft_env::Env;
use weft_policy::Config;
use weft_resources::{Resource, ResourceError, ResourceKey};

use crate::admin::types::{
    Action, ApplyReply, ResourceChange, ResourceEntry, ResourceFilter, ResourceList,
};
use crate::problem::Reject;
use crate::store::{Condition, Entry, Revision, Store, StoreError, Txn};

const PREFIX: &str = "config/";
/// Written by every change of the config: two changes that are valid alone may not be together, so the
/// second one has to look again.
const GUARD: &str = "mesh/config-guard";
/// Changes that get in between before one gives up.
const ATTEMPTS: usize = 10;
/// Most resources of a mesh.
const MAX_RESOURCES: usize = 10_000;
/// Most faults told at once.
const MAX_FAULTS: usize = 10;

/// The config as it is stored.
struct Stored {
    resources: BTreeMap<ResourceKey, (Resource, Revision)>,
    guard: Condition,
}

/// Stores the resources, all or none.
///
/// # Errors
/// Names the resource at fault; nothing was changed.
pub(crate) async fn apply(
    env: &Env,
    store: &dyn Store,
    values: &[Value],
) -> Result<ApplyReply, Reject> {
    let wanted = parse(values)?;
    change(env, store, |stored| {
        let mut next = all(stored);
        let mut txn = Txn::new();
        let mut changes = Vec::new();
        let mut unchanged_since = 0;
        for resource in &wanted {
            let key = resource.key();
            let action = match stored.resources.get(&key) {
                None => Action::Created,
                Some((present, revision)) if present == resource => {
                    unchanged_since = unchanged_since.max(*revision);
                    Action::Unchanged
                }
                Some(_) => Action::Updated,
            };
            if action != Action::Unchanged {
                txn = txn.put(store_key(&key), json(resource));
                next.insert(key.clone(), resource.clone());
            }
            changes.push(ResourceChange {
                key: key.to_string(),
                action,
            });
        }
        if next.len() > MAX_RESOURCES {
            return Err(Reject::bad_request(
                "too_many_resources",
                format!(
                    "this would make {} resources, the limit is {MAX_RESOURCES}",
                    next.len()
                ),
            ));
        }
        Ok(Planned {
            next,
            txn,
            reply: ApplyReply {
                revision: unchanged_since,
                changes,
            },
        })
    })
    .await
}

/// Removes resources, all or none.
///
/// # Errors
/// 404 if one is not there; or that what is left is not valid without them.
pub(crate) async fn delete(
    env: &Env,
    store: &dyn Store,
    keys: &[ResourceKey],
) -> Result<ApplyReply, Reject> {
    change(env, store, |stored| {
        let mut next = all(stored);
        let (mut txn, mut changes) = (Txn::new(), Vec::new());
        for key in keys {
            if next.remove(key).is_none() {
                return Err(Reject::new(
                    StatusCode::NOT_FOUND,
                    "no_such_resource",
                    format!("there is no {key}; weft get lists what there is"),
                ));
            }
            txn = txn.delete(store_key(key));
            changes.push(ResourceChange {
                key: key.to_string(),
                action: Action::Deleted,
            });
        }
        Ok(Planned {
            next,
            txn,
            reply: ApplyReply {
                revision: 0,
                changes,
            },
        })
    })
    .await
}

/// Stored resources that match.
///
/// # Errors
/// [`StoreError`] if they cannot be read.
pub(crate) async fn list(
    store: &dyn Store,
    filter: &ResourceFilter,
) -> Result<ResourceList, StoreError> {
    let range = store.range(PREFIX).await?;
    let matches = |wanted: &Option<String>, part: &str| wanted.as_deref().is_none_or(|w| w == part);
    let resources = range
        .entries
        .iter()
        .filter_map(|entry| {
            let key = entry.key.strip_prefix(PREFIX)?;
            let mut parts = key.splitn(3, '/');
            let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
            let wanted = matches(&filter.kind, kind)
                && matches(&filter.namespace, namespace)
                && matches(&filter.name, name);
            let resource = serde_json::from_slice(&entry.value).ok()?;
            wanted.then(|| ResourceEntry {
                key: key.to_owned(),
                revision: entry.mod_revision,
                resource,
            })
        })
        .collect();
    Ok(ResourceList {
        revision: range.revision,
        resources,
    })
}

/// What a change comes to.
struct Planned {
    next: BTreeMap<ResourceKey, Resource>,
    txn: Txn,
    reply: ApplyReply,
}

/// Reads, plans, validates, commits; from the start again if someone else was faster.
async fn change(
    env: &Env,
    store: &dyn Store,
    plan: impl Fn(&Stored) -> Result<Planned, Reject>,
) -> Result<ApplyReply, Reject> {
    for _ in 0..ATTEMPTS {
        let stored = load(store).await?;
        let Planned {
            next,
            txn,
            mut reply,
        } = plan(&stored)?;
        if txn.ops.is_empty() {
            return Ok(reply);
        }
        let resources: Vec<Resource> = next.into_values().collect();
        // A large config takes its time: not on the threads that carry traffic.
        env.disk(move |_| Config::compile(&resources).map(drop))
            .await
            .map_err(invalid)?;
        let txn = txn.when(stored.guard).put(GUARD, "");
        match store.commit(txn).await {
            Ok(revision) => {
                reply.revision = revision;
                tracing::info!(revision, changes = ?reply.changes, "config changed");
                return Ok(reply);
            }
            Err(StoreError::Conflict { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Reject::new(
        StatusCode::CONFLICT,
        "conflict",
        "others change the config all the time; nothing was changed, try again",
    ))
}

async fn load(store: &dyn Store) -> Result<Stored, Reject> {
    let guard = match store.get(GUARD).await? {
        Some(entry) => Condition::At(GUARD.to_owned(), entry.mod_revision),
        None => Condition::Absent(GUARD.to_owned()),
    };
    let range = store.range(PREFIX).await?;
    let mut resources = BTreeMap::new();
    for entry in &range.entries {
        let resource = read(entry)?;
        resources.insert(resource.key(), (resource, entry.mod_revision));
    }
    Ok(Stored { resources, guard })
}

fn read(entry: &Entry) -> Result<Resource, Reject> {
    let damaged = |reason: String| {
        Reject::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "damaged",
            format!(
                "the stored resource {} cannot be read ({reason}); was it written by a later version?",
                entry.key
            ),
        )
    };
    let value: Value =
        serde_json::from_slice(&entry.value).map_err(|error| damaged(error.to_string()))?;
    Resource::from_json(&value).map_err(|errors| damaged(sentence(&errors)))
}

fn all(stored: &Stored) -> BTreeMap<ResourceKey, Resource> {
    let resources = stored.resources.iter();
    resources
        .map(|(key, (resource, _))| (key.clone(), resource.clone()))
        .collect()
}

fn parse(values: &[Value]) -> Result<Vec<Resource>, Reject> {
    let mut seen = BTreeSet::new();
    let mut resources = Vec::new();
    for (index, value) in values.iter().enumerate() {
        let resource = Resource::from_json(value)
            .map_err(|errors| invalid(format!("resource {}: {}", index + 1, sentence(&errors))))?;
        if !seen.insert(resource.key()) {
            return Err(invalid(format!("{} is given twice", resource.key())));
        }
        resources.push(resource);
    }
    if resources.is_empty() {
        return Err(invalid("there is no resource in the request"));
    }
    Ok(resources)
}

fn sentence(errors: &[ResourceError]) -> String {
    let mut faults: Vec<String> = errors
        .iter()
        .take(MAX_FAULTS)
        .map(ToString::to_string)
        .collect();
    if errors.len() > MAX_FAULTS {
        faults.push(format!("and {} more", errors.len() - MAX_FAULTS));
    }
    faults.join("; ")
}

fn invalid(reason: impl std::fmt::Display) -> Reject {
    Reject::bad_request("invalid_resource", format!("{reason}; nothing was changed"))
}

fn store_key(key: &ResourceKey) -> String {
    format!("{PREFIX}{key}")
}

fn json(resource: &Resource) -> Vec<u8> {
    resource.to_json().to_string().into_bytes()
}

#[cfg(test)]
mod tests;
