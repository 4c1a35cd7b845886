//! Brings the stored endpoints to what the table says, and keeps them there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use weft_certs::SpiffeId;
use weft_wire::{EndpointRecord, ResourcePath, ServiceRecord};

use super::{Registry, Table, service_of, services, unix_ms};
use crate::delegate::UPSTREAM;
use crate::store::{Entry, Store, StoreError, Txn};

const PREFIX: &str = "endpoint/";
/// Pause before the store is tried again after it failed.
const RETRY: Duration = Duration::from_millis(500);

/// Puts the stored endpoints into the table: gone, with the whole grace before them. So a restart of the
/// control node never empties the mesh.
///
/// # Errors
/// [`StoreError`] if they cannot be read.
pub(crate) async fn restore(
    registry: &Registry,
    store: &dyn Store,
    unix_ms: u64,
) -> Result<(), StoreError> {
    let range = store.range(PREFIX).await?;
    let upstream = store.range(UPSTREAM).await?.entries;
    // What a delegate was told of is not its own to wait for.
    let told: BTreeSet<&str> = upstream
        .iter()
        .filter_map(|known| known.key.strip_prefix(UPSTREAM))
        .collect();
    let now = Instant::now();
    registry.change(|table| {
        for entry in &range.entries {
            if told.contains(entry.key.as_str()) {
                continue;
            }
            if let Some((instance, record, identity)) = parse(entry)
                && let Ok(service) = service_of(&identity)
            {
                table.restore(service, &instance, &record, identity, (now, unix_ms));
            }
        }
    });
    Ok(())
}

fn parse(entry: &Entry) -> Option<(String, EndpointRecord, SpiffeId)> {
    let Ok(ResourcePath::Endpoint { instance, .. }) = entry.key.parse() else {
        return None;
    };
    let record: EndpointRecord = serde_json::from_slice(&entry.value).ok()?;
    let identity = SpiffeId::parse(&record.spiffe_id).ok()?;
    Some((instance, record, identity))
}

/// Follows the table until `stop`: forgets sidecars whose grace is over, and writes what changed.
pub(crate) async fn keep_endpoints(
    registry: Registry,
    store: Arc<dyn Store>,
    stop: CancellationToken,
) {
    let mut changes = registry.subscribe();
    loop {
        changes.mark_unchanged();
        let expired = registry.expire(Instant::now());
        for sidecar in expired {
            tracing::info!(
                service = %sidecar.service, instance = sidecar.instance,
                "a sidecar did not come back; its endpoint is removed, `weft status` shows it as gone for a day"
            );
        }
        let retry = match write(&registry, &*store).await {
            Ok(()) => false,
            Err(StoreError::Conflict { .. }) => continue,
            Err(error) => {
                tracing::error!(%error, "endpoints cannot be stored");
                true
            }
        };
        let expiry = registry.read(|table| table.next_expiry(registry.grace()));
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(RETRY), if retry => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {}
        }
    }
}

async fn write(registry: &Registry, store: &dyn Store) -> Result<(), StoreError> {
    let endpoints = store.range(PREFIX).await?;
    let services = store.range(services::PREFIX).await?;
    let upstream = store.range(UPSTREAM).await?;
    let now = unix_ms((registry.shared.wall)()) / 1000;
    let (mut wanted, mut services_wanted) = registry.read(|table| {
        let services = services::wanted(table, &services.entries, now);
        (wanted(table), services)
    });
    lay_over(&mut wanted, &upstream.entries, PREFIX);
    lay_over(&mut services_wanted, &upstream.entries, services::PREFIX);
    // In one revision, services first: no snapshot shows a service forgotten with its last instance.
    let txn = difference(Txn::new(), &services_wanted, &services.entries);
    let txn = difference(txn, &wanted, &endpoints.entries);
    if !txn.ops.is_empty() {
        let revision = store.commit(txn).await?;
        tracing::debug!(revision, "endpoints stored");
    }
    Ok(())
}

fn wanted(table: &Table) -> BTreeMap<String, Bytes> {
    table
        .iter()
        .filter_map(|sidecar| {
            let (key, record) = sidecar.endpoint();
            let value = serde_json::to_vec(&record).ok()?;
            Some((key, Bytes::from(value)))
        })
        .collect()
}

/// At a delegate: what its control node told of, but for what it knows itself. A service that has no instance here may have
/// some there.
fn lay_over(wanted: &mut BTreeMap<String, Bytes>, upstream: &[Entry], prefix: &str) {
    let gone = |value: &Bytes| {
        serde_json::from_slice::<ServiceRecord>(value)
            .is_ok_and(|record| record.gone_unix.is_some())
    };
    for entry in upstream {
        let Some(key) = entry.key.strip_prefix(UPSTREAM) else {
            continue;
        };
        let ours = wanted.get(key).is_some_and(|value| !gone(value));
        if key.starts_with(prefix) && !ours {
            wanted.insert(key.to_owned(), entry.value.clone());
        }
    }
}

/// Adds what turns the stored entries into the wanted ones.
fn difference(mut txn: Txn, wanted: &BTreeMap<String, Bytes>, stored: &[Entry]) -> Txn {
    let stored: BTreeMap<&str, &Bytes> = stored
        .iter()
        .map(|entry| (entry.key.as_str(), &entry.value))
        .collect();
    for key in stored.keys().filter(|key| !wanted.contains_key(**key)) {
        txn = txn.delete(*key);
    }
    for (key, value) in wanted {
        if stored.get(key.as_str()) != Some(&value) {
            txn = txn.put(key, value.clone());
        }
    }
    txn
}

impl Registry {
    fn expire(&self, now: Instant) -> Vec<super::Sidecar> {
        let grace = self.grace();
        if self.read(|table| table.next_expiry(grace).is_none_or(|at| at > now)) {
            return Vec::new();
        }
        self.change(|table| table.expire(now, grace))
    }
}

#[cfg(test)]
mod tests;
