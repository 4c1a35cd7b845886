//! The live sidecars, and the endpoint records that follow from them.
//!
//! A session changes the table; one task, [`keep_endpoints`], brings the store's `endpoint/` and `service/` keys to
//! what the table says. So many sidecars that come or go at once make one transaction, and an endpoint can not be
//! removed by an old connection after a new one registered.

mod edges;
mod endpoints;
mod receipts;
mod services;
mod table;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use weft_certs::Clock;
use weft_wire::{Ack, EdgeReport, Nack, Renew, Report};

use crate::time::unix_ms;

pub(crate) use edges::{EdgeTable, percentile, success_rate};
pub(crate) use endpoints::{keep_endpoints, restore};
pub(crate) use receipts::{Lost, nack_info, receipts};
pub(crate) use table::{Arrival, Epoch, Link, Refusal, Sidecar, Table, service_of};
#[cfg(test)]
pub(crate) use table::{acknowledge, hear};

/// How long an endpoint stays after its sidecar's connection broke.
pub(crate) const DEFAULT_GRACE: Duration = Duration::from_secs(15);

/// Shared handle of the table. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Registry {
    shared: Arc<Shared>,
}

struct Shared {
    grace: Duration,
    wall: Clock,
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Inner {
    table: Table,
    edges: EdgeTable,
    /// The way to each live session, by instance.
    orders: BTreeMap<String, watch::Sender<Option<Renew>>>,
}

/// A registered connection: its number, and what it is asked to do. The orders end when a later
/// connection of the same instance takes its place.
#[derive(Debug)]
pub(crate) struct Registered {
    pub(crate) epoch: Epoch,
    pub(crate) orders: watch::Receiver<Option<Renew>>,
}

impl Registry {
    pub(crate) fn new(grace: Duration, wall: Clock) -> Self {
        Self {
            shared: Arc::new(Shared {
                grace,
                wall,
                inner: Mutex::new(Inner::default()),
                changes: watch::Sender::new(0),
            }),
        }
    }

    /// Tells of every change of the table.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Has whoever follows the table look again: what it is laid over has changed.
    pub(crate) fn look_again(&self) {
        self.changed();
    }

    /// Reads the table.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&Table) -> T) -> T {
        read(&self.lock().table)
    }

    /// Reads the edges.
    pub(crate) fn edges<T>(&self, read: impl FnOnce(&EdgeTable) -> T) -> T {
        read(&self.lock().edges)
    }

    /// See [`Table::arrive`].
    ///
    /// # Errors
    /// [`Refusal`].
    pub(crate) fn arrive(&self, arrival: &Arrival<'_>) -> Result<Registered, Refusal> {
        let (sender, orders) = watch::channel(None);
        let mut inner = self.lock();
        let epoch = inner.table.arrive(arrival)?;
        inner.orders.insert(arrival.hello.instance.clone(), sender);
        drop(inner);
        self.changed();
        Ok(Registered { epoch, orders })
    }

    /// Asks the sessions of these instances for a new certificate. Those that are gone are passed over.
    pub(crate) fn ask_to_renew(&self, instances: &[String], renew: &Renew) {
        let inner = self.lock();
        for sender in instances.iter().filter_map(|name| inner.orders.get(name)) {
            sender.send_replace(Some(renew.clone()));
        }
    }

    /// The connection broke: the grace begins.
    pub(crate) fn lose(&self, instance: &str, epoch: Epoch, unix_ms: u64) -> bool {
        let mut inner = self.lock();
        let lost = inner.table.lose(instance, epoch, Instant::now(), unix_ms);
        if lost {
            inner.orders.remove(instance);
            drop(inner);
            self.changed();
        }
        lost
    }

    /// The sidecar said goodbye.
    pub(crate) fn leave(&self, instance: &str, epoch: Epoch) {
        let mut inner = self.lock();
        if inner.table.leave(instance, epoch) {
            inner.orders.remove(instance);
            drop(inner);
            self.changed();
        }
    }

    /// A receipt came in.
    pub(crate) fn acked(&self, instance: &str, epoch: Epoch, ack: Ack) {
        self.update(instance, epoch, |sidecar| {
            table::acknowledge(sidecar, ack, Instant::now());
        });
    }

    /// A refusal came in.
    pub(crate) fn nacked(&self, instance: &str, epoch: Epoch, nack: Nack) {
        self.update(instance, epoch, |sidecar| sidecar.nack = Some(nack));
    }

    /// A report came in: its state replaces the last, its traffic is added.
    pub(crate) fn reported(&self, instance: &str, epoch: Epoch, mut report: Report) {
        let unix_ms = unix_ms((self.shared.wall)());
        let edges: Vec<EdgeReport> = std::mem::take(&mut report.edges);
        let mut inner = self.lock();
        let Some(sidecar) = inner.table.live_mut(instance, epoch) else {
            return;
        };
        let news = table::hear(sidecar, report, unix_ms);
        let service = sidecar.service.to_string();
        inner.edges.add(&service, edges);
        drop(inner);
        if news {
            self.changed();
        }
    }

    fn update(&self, instance: &str, epoch: Epoch, update: impl FnOnce(&mut Sidecar)) {
        let found = self.lock().table.live_mut(instance, epoch).map(update);
        if found.is_some() {
            self.changed();
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table) -> T) -> T {
        let result = change(&mut self.lock().table);
        self.changed();
        result
    }

    fn changed(&self) {
        self.shared.changes.send_modify(|count| *count += 1);
    }

    fn grace(&self) -> Duration {
        self.shared.grace
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change is a whole record put in place, so a panic in between leaves the old one.
        self.shared
            .inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
