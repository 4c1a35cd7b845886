//! Which services there are, also those that have no instance now. Pure.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use weft_wire::{PortRecord, ResourcePath, ServiceRecord};

use super::Table;
use crate::store::Entry;

pub(super) const PREFIX: &str = "service/";
/// How long a service without instances is still a service that is down: then its name means nothing again.
const MEMORY_SECONDS: u64 = 30 * 24 * 3600;
/// Most services without instances that are remembered; those gone longest are forgotten first.
const MAX_GONE: usize = 10_000;

/// The `service/` keys as they should be: those in the table, and those that were there within the memory.
pub(super) fn wanted(table: &Table, stored: &[Entry], now_unix: u64) -> BTreeMap<String, Bytes> {
    let mut wanted: BTreeMap<String, ServiceRecord> = present(table);
    let mut gone: Vec<(u64, String, ServiceRecord)> = stored
        .iter()
        .filter(|entry| !wanted.contains_key(&entry.key))
        .filter_map(|entry| {
            let mut record: ServiceRecord = serde_json::from_slice(&entry.value).ok()?;
            let since = *record.gone_unix.get_or_insert(now_unix);
            let remembered = since.saturating_add(MEMORY_SECONDS) > now_unix;
            remembered.then(|| (since, entry.key.clone(), record))
        })
        .collect();
    gone.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    gone.truncate(MAX_GONE);
    wanted.extend(gone.into_iter().map(|(_, key, record)| (key, record)));
    wanted
        .into_iter()
        .filter_map(|(key, record)| Some((key, Bytes::from(serde_json::to_vec(&record).ok()?))))
        .collect()
}

/// The services of the sidecars in the table, with all their ports.
fn present(table: &Table) -> BTreeMap<String, ServiceRecord> {
    let mut ports: BTreeMap<String, BTreeSet<PortRecord>> = BTreeMap::new();
    for sidecar in table.iter() {
        let key = ResourcePath::Service {
            namespace: sidecar.service.namespace().to_owned(),
            service: sidecar.service.name().to_owned(),
        };
        let known = ports.entry(key.to_string()).or_default();
        known.extend(sidecar.ports.iter().cloned());
    }
    ports
        .into_iter()
        .map(|(key, ports)| {
            let record = ServiceRecord {
                ports: ports.into_iter().collect(),
                gone_unix: None,
            };
            (key, record)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Arrival;
    use crate::testing;

    fn table(services: &[&str]) -> Table {
        let mut table = Table::default();
        for service in services {
            let arrival = Arrival {
                identity: &testing::id(service),
                not_after_unix: 1,
                remote: "127.0.0.1".parse().unwrap(),
                hello: &testing::hello(&format!("{service}-1")),
                unix_ms: 1,
            };
            table.arrive(&arrival).unwrap();
        }
        table
    }

    fn entries(of: &BTreeMap<String, Bytes>) -> Vec<Entry> {
        let entry = |(key, value): (&String, &Bytes)| Entry {
            key: key.clone(),
            value: value.clone(),
            mod_revision: 1,
        };
        of.iter().map(entry).collect()
    }

    fn gone(of: &BTreeMap<String, Bytes>, key: &str) -> Option<u64> {
        let record: ServiceRecord = serde_json::from_slice(&of[key]).unwrap();
        assert_eq!(record.ports.len(), 1, "the ports are kept");
        record.gone_unix
    }

    #[test]
    fn a_service_is_remembered_for_its_time_and_comes_back() {
        const KEY: &str = "service/default/invoices";
        let there = wanted(&table(&["invoices"]), &[], 100);
        assert_eq!(gone(&there, KEY), None);
        let down = wanted(&table(&["orders"]), &entries(&there), 200);
        assert_eq!(gone(&down, KEY), Some(200));
        assert_eq!(gone(&down, "service/default/orders"), None);
        let still = wanted(&table(&[]), &entries(&down), 200 + MEMORY_SECONDS - 1);
        assert_eq!(gone(&still, KEY), Some(200), "since when does not move");
        let back = wanted(&table(&["invoices"]), &entries(&still), 300);
        assert_eq!(gone(&back, KEY), None);
        let over = wanted(&table(&[]), &entries(&down), 200 + MEMORY_SECONDS);
        assert!(!over.contains_key(KEY));
    }

    #[test]
    fn those_gone_longest_are_forgotten_first() {
        let stored: Vec<Entry> = (0..=MAX_GONE as u64)
            .map(|since| Entry {
                key: format!("service/default/s{since}"),
                value: Bytes::from(format!(r#"{{"ports":[],"gone_unix":{since}}}"#)),
                mod_revision: 1,
            })
            .collect();
        let wanted = wanted(&table(&[]), &stored, 20_000);
        assert_eq!(wanted.len(), MAX_GONE);
        assert!(!wanted.contains_key("service/default/s0"));
        assert!(wanted.contains_key("service/default/s1"));
    }
}
