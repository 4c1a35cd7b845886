//! Puts one update into force: aside first, then whole or not at all (docs/adr/0005-refusable-config.md).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use tokio::time::{Instant, sleep};
use weft_certs::{BundleSet, RevocationList, SpiffeId, TrustBundle, TrustDomain};
use weft_env::mutants::{Mutant, broken};
use weft_policy::{Config as Compiled, Endpoint, PortProtocol, Snapshot};
use weft_resources::ServiceName;
use weft_wire::{
    Ack, EndpointRecord, Nack, PortRecord, Protocol, ServiceRecord, SidecarMessage, Update,
};

use super::desired::{Config, Desired, Unusable};
use crate::node::Node;
use crate::outbound::ports::Ports;
use crate::running::Running;
use crate::state_dir::SavedSnapshot;

/// Holds what was pushed and what of it is in force.
pub(crate) struct Applier {
    node: Arc<Node>,
    desired: Desired,
    running: Option<InForce>,
    ports: Ports,
    /// Whether what is in force differs from what was saved last.
    dirty: bool,
    bundles_dirty: bool,
    /// Whether that is config: who acknowledges it must have it after a restart too. Endpoints come and go
    /// by the second and are worth no write each.
    config_dirty: bool,
}

/// The config that requests follow.
struct InForce {
    config: Config,
    compiled: Arc<Compiled>,
}

impl Applier {
    pub(crate) fn new(node: Arc<Node>, ports: Ports) -> Self {
        Self {
            node,
            desired: Desired::default(),
            running: None,
            ports,
            dirty: false,
            bundles_dirty: false,
            config_dirty: false,
        }
    }

    /// Puts a saved snapshot into force, at the start. Why not, if it cannot be used.
    pub(crate) async fn restore(&mut self, saved: &SavedSnapshot) -> Result<(), Unusable> {
        self.desired = Desired::saved(saved.revision, &saved.keys);
        self.put_in_force().await?;
        (self.dirty, self.config_dirty) = (false, false);
        self.node.readiness.set(Ok(()));
        Ok(())
    }

    /// The revision whose config is in force.
    pub(crate) fn revision(&self) -> Option<u64> {
        self.running.as_ref().map(|running| running.config.revision)
    }

    /// Takes an update in and gives the answer to it.
    pub(crate) async fn apply(&mut self, update: Update, received: Instant) -> SidecarMessage {
        let revision = update.revision;
        self.desired.apply(update);
        let trust = self.take_trust();
        let config = self.put_in_force().await;
        self.dirty = true;
        match config.and(trust) {
            Ok(()) => {
                let took_us = u64::try_from(received.elapsed().as_micros()).unwrap_or(u64::MAX);
                tracing::info!(revision, took_us, "config in force");
                SidecarMessage::Ack(Ack {
                    revision,
                    in_force_unix_ms: self.unix_ms(),
                    took_us,
                    unsaved: None,
                })
            }
            Err(unusable) => {
                self.node.telemetry.config_nacked();
                let Unusable { key, reason } = unusable;
                tracing::warn!(revision, key = key.as_deref().unwrap_or("-"), %reason, "config refused");
                SidecarMessage::Nack(Nack {
                    revision,
                    running: self.revision(),
                    key,
                    reason,
                })
            }
        }
    }

    fn unix_ms(&self) -> u64 {
        let since = self.node.env.wall().duration_since(UNIX_EPOCH);
        since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        })
    }

    /// Makes the desired state the running one. If its config cannot be used, the config in force is
    /// joined with the new endpoints, and the reason given back.
    async fn put_in_force(&mut self) -> Result<(), Unusable> {
        match self.next_config().await {
            Ok(next) => {
                if broken(Mutant::AppliesInTwoSteps)
                    && let Some(InForce { compiled, .. }) = &self.running
                {
                    self.swap(next.config.revision, compiled);
                    sleep(Duration::from_millis(50)).await;
                }
                self.swap(next.config.revision, &next.compiled);
                self.running = Some(next);
                Ok(())
            }
            Err(unusable) => {
                if let Some(InForce { config, compiled }) = &self.running {
                    self.swap(config.revision, compiled);
                }
                Err(unusable)
            }
        }
    }

    /// Everything that can fail: reading, compiling, opening local ports.
    async fn next_config(&mut self) -> Result<InForce, Unusable> {
        let config = self.desired.config();
        if let Some(running) = &self.running
            && running.config.same_resources(&config)
        {
            let compiled = Arc::clone(&running.compiled);
            return Ok(InForce { config, compiled });
        }
        let resources = config.resources()?;
        let compiled = Compiled::compile(&resources).map_err(|error| Unusable {
            key: error.key,
            reason: error.reason,
        })?;
        let compiled = Arc::new(compiled);
        self.config_dirty = true;
        let probe = Snapshot::assemble(config.revision, Arc::clone(&compiled), BTreeMap::new());
        let wanted: Vec<_> = probe.listeners_of(&self.node.service).cloned().collect();
        self.ports.replace(&self.node, &wanted).await?;
        Ok(InForce { config, compiled })
    }

    /// The moment from which new requests follow the revision.
    fn swap(&self, revision: u64, compiled: &Arc<Compiled>) {
        let snapshot = Snapshot::assemble(revision, Arc::clone(compiled), self.endpoints())
            .with_registered(self.registered());
        let before = self.node.running.load_full();
        let next = Running::new(snapshot, before.as_deref(), self.node.uptime());
        self.node.running.store(Some(Arc::new(next)));
        self.node.telemetry.set_revision(revision);
    }

    fn endpoints(&self) -> BTreeMap<ServiceName, Vec<Endpoint>> {
        let mut services: BTreeMap<ServiceName, Vec<Endpoint>> = BTreeMap::new();
        for (namespace, service, instance, record) in self.desired.endpoints() {
            let Ok(name) = ServiceName::new(namespace, service) else {
                continue;
            };
            match endpoint(instance, record) {
                Ok(endpoint) => services.entry(name).or_default().push(endpoint),
                Err(error) => tracing::warn!(%instance, %error, "an endpoint is not used"),
            }
        }
        services
    }

    /// Every service of the mesh with what it serves, also while it has no instance.
    fn registered(&self) -> Vec<(ServiceName, Vec<(u16, PortProtocol)>)> {
        let named = |(namespace, service, record): (&str, &str, ServiceRecord)| {
            let name = ServiceName::new(namespace, service).ok()?;
            Some((name, ports(&record.ports)))
        };
        self.desired.services().filter_map(named).collect()
    }

    /// Trusts what was pushed, if it still vouches for the own SVID.
    fn take_trust(&mut self) -> Result<(), Unusable> {
        let refuse = |reason: String| Unusable { key: None, reason };
        let mut bundles = BundleSet::new();
        for (name, jwks) in self.desired.trust() {
            let bundle = TrustDomain::parse(name)
                .and_then(|domain| TrustBundle::from_jwks(domain, jwks))
                .map_err(|error| refuse(error.to_string()))?;
            bundles.insert(bundle);
        }
        for (name, list) in self.desired.revoked() {
            let domain = TrustDomain::parse(name).map_err(|error| refuse(error.to_string()))?;
            let list: RevocationList = serde_json::from_value(list.clone())
                .map_err(|error| refuse(format!("the list of what is revoked: {error}")))?;
            if list.bars(&self.node.id) {
                tracing::error!(id = %self.node.id, "this identity is revoked: peers refuse it");
            }
            bundles.revoke(domain, list);
        }
        if bundles.is_empty() {
            return Ok(());
        }
        let changed = self.node.trust(bundles);
        self.bundles_dirty |= changed
            .map_err(|error| refuse(format!("the pushed trust bundle is not used: {error}")))?;
        Ok(())
    }

    /// Whether something must be on disk before it is acknowledged.
    pub(crate) fn must_save(&self) -> bool {
        self.config_dirty && self.running.is_some()
    }

    /// What to save, if it changed since the last call.
    pub(crate) fn take_unsaved(&mut self) -> (Option<SavedSnapshot>, Option<Arc<BundleSet>>) {
        self.config_dirty = false;
        let bundles = std::mem::take(&mut self.bundles_dirty).then(|| self.node.trusted());
        let snapshot = match &self.running {
            Some(running) if std::mem::take(&mut self.dirty) => Some(SavedSnapshot {
                revision: running.config.revision,
                keys: self.desired.to_save(&running.config),
            }),
            _ => None,
        };
        (snapshot, bundles)
    }

    /// What was taken could not be saved: everything is to be saved the next time.
    pub(crate) fn save_again(&mut self) {
        (self.dirty, self.bundles_dirty) = (true, true);
    }
}

fn endpoint(instance: &str, record: EndpointRecord) -> Result<Endpoint, weft_certs::Error> {
    Ok(Endpoint {
        instance: instance.into(),
        spiffe_id: SpiffeId::parse(&record.spiffe_id)?,
        addr: record.mesh_addr,
        ports: ports(&record.ports),
    })
}

fn ports(records: &[PortRecord]) -> Vec<(u16, PortProtocol)> {
    records
        .iter()
        .map(|port| (port.port, carried(port.protocol)))
        .collect()
}

/// The same word in two crates' vocabularies.
fn carried(protocol: Protocol) -> PortProtocol {
    match protocol {
        Protocol::Http => PortProtocol::Http,
        Protocol::Tcp => PortProtocol::Tcp,
    }
}
