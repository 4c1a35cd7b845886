//! Who is there: decisions over plain data, with the time as an argument.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::Instant;
use weft_certs::SpiffeId;
use weft_resources::ServiceName;
use weft_wire::{
    Ack, EndpointRecord, Hello, MAX_CONNECTIONS, MAX_UNREACHABLE, Nack, PortRecord, Report,
    TrustReport,
};

/// Which connection of an instance: a later one has a higher number, and replaces the earlier.
pub(crate) type Epoch = u64;

/// Most sidecars of one control node, connected or in grace.
const MAX_SIDECARS: usize = 20_000;
/// How long a lost sidecar is remembered after its grace, for people to see.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Most lost sidecars that are remembered; beyond it those lost first are forgotten.
const MAX_LOST: usize = 1_000;
/// Characters of where an identity comes from: a socket's path has 107 bytes.
const MAX_SHOWN: usize = 128;
/// Most ports of one service.
const MAX_PORTS: usize = 64;

/// Why a sidecar may not register.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(
        "the identity {0} is not that of a service (spiffe://<trust domain>/ns/<namespace>/sa/<service>); use a token made with: weft token create --service NAME"
    )]
    NotAService(SpiffeId),
    #[error(
        "the instance id {0:?} is not usable: 1 to 63 letters, digits and '-'; remove the sidecar's state directory and join again"
    )]
    BadInstance(String),
    #[error(
        "the instance id {instance} belongs to {owner}; every sidecar needs a state directory of its own"
    )]
    InstanceTaken { instance: String, owner: SpiffeId },
    #[error(
        "the instance id {instance} is in use by the sidecar at {at} (pid {pid}), which took it over from this one: both run on copies of one state directory; stop one of the two, remove its state directory and join it again with a token of its own"
    )]
    Contested {
        instance: String,
        at: SocketAddr,
        pid: u32,
    },
    #[error("the sidecar announces {0} ports, the limit is {MAX_PORTS}")]
    TooManyPorts(usize),
    #[error("this control node has {MAX_SIDECARS} sidecars already, which is its limit")]
    Full,
}

/// Whether a sidecar is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Live(Epoch),
    /// Not connected since then. Its endpoint stays until the grace is over.
    Gone(Instant),
}

/// The newest acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acked {
    pub(crate) ack: Ack,
    pub(crate) received: Instant,
}

/// All that is known of one sidecar.
#[derive(Debug, Clone)]
pub(crate) struct Sidecar {
    pub(crate) identity: SpiffeId,
    pub(crate) service: ServiceName,
    pub(crate) instance: String,
    pub(crate) version: String,
    pub(crate) pid: u32,
    pub(crate) addr: SocketAddr,
    pub(crate) ports: Vec<PortRecord>,
    pub(crate) link: Link,
    /// Unix milliseconds: connected since, or gone since.
    pub(crate) since_unix_ms: u64,
    pub(crate) acked: Option<Acked>,
    pub(crate) nack: Option<Nack>,
    /// Why what it has in force is not on its disk: its last word on that, by receipt or report.
    pub(crate) unsaved: Option<String>,
    /// Serial of the SVID it serves: from its greeting, then from its reports.
    pub(crate) serial: String,
    /// End of that SVID, Unix seconds.
    pub(crate) not_after_unix: u64,
    pub(crate) report: Option<Report>,
    /// When it was last heard to have another certificate, Unix milliseconds.
    pub(crate) heard_unix_ms: u64,
    /// When it was first heard to trust as it does now, Unix milliseconds.
    pub(crate) trust_unix_ms: u64,
    /// Connections that it had cut before it came to trust as it does now.
    pub(crate) cut_before: u64,
    /// The other process, if any, whose live connection this one replaced: by its process id and mesh address.
    pub(crate) ousted: Option<(u32, SocketAddr)>,
    /// Where its identity comes from, by its own word; `None`: from this mesh's CA.
    pub(crate) identity_from: Option<String>,
}

impl Sidecar {
    /// What tells two processes of one instance apart.
    fn process(&self) -> (u32, SocketAddr) {
        (self.pid, self.addr)
    }

    /// Which process the arrival of `process` in place of this one ousts. One that was ousted itself may not
    /// come back while its successor lives: two sidecars with one state would take turns for ever.
    fn make_way(&self, process: (u32, SocketAddr)) -> Result<Option<(u32, SocketAddr)>, Refusal> {
        if self.process() == process {
            return Ok(self.ousted);
        }
        if !self.is_live() {
            return Ok(None);
        }
        if self.ousted == Some(process) {
            return Err(Refusal::Contested {
                instance: self.instance.clone(),
                at: self.addr,
                pid: self.pid,
            });
        }
        Ok(Some(self.process()))
    }

    /// Whom it says it trusts; `None` until it has said, or if it is of a version that does not say.
    pub(crate) fn trust(&self) -> Option<&TrustReport> {
        self.report.as_ref()?.trust.as_ref()
    }

    /// Since when it is not connected.
    fn gone(&self) -> Option<Instant> {
        match self.link {
            Link::Gone(since) => Some(since),
            Link::Live(_) => None,
        }
    }

    pub(crate) fn is_live(&self) -> bool {
        matches!(self.link, Link::Live(_))
    }

    /// `service/instance`, for people.
    pub(crate) fn label(&self) -> String {
        format!("{}/{}", self.service, self.instance)
    }

    /// Serial of the issuing certificate; empty until it has reported.
    pub(crate) fn issuer(&self) -> &str {
        self.report.as_ref().map_or("", |report| &report.issuer)
    }

    /// Key and value of its endpoint in the store.
    pub(crate) fn endpoint(&self) -> (String, EndpointRecord) {
        let record = EndpointRecord {
            spiffe_id: self.identity.to_string(),
            mesh_addr: self.addr,
            ports: self.ports.clone(),
        };
        (endpoint_key(&self.service, &self.instance), record)
    }
}

pub(crate) fn endpoint_key(service: &ServiceName, instance: &str) -> String {
    format!(
        "endpoint/{}/{}/{instance}",
        service.namespace(),
        service.name()
    )
}

/// A greeting, with what the connection itself tells.
#[derive(Debug, Clone)]
pub(crate) struct Arrival<'a> {
    pub(crate) identity: &'a SpiffeId,
    pub(crate) not_after_unix: u64,
    /// Where the connection comes from.
    pub(crate) remote: IpAddr,
    pub(crate) hello: &'a Hello,
    pub(crate) unix_ms: u64,
}

/// Every sidecar that is connected or in grace, by instance.
#[derive(Debug, Default)]
pub(crate) struct Table {
    sidecars: BTreeMap<String, Sidecar>,
    /// Those that neither said goodbye nor came back within their grace. They have no part in the mesh any more: this
    /// is for people to see.
    lost: BTreeMap<String, Sidecar>,
    last_epoch: Epoch,
}

impl Table {
    /// Registers a sidecar under the service that its identity names. An older connection of the same
    /// instance is replaced, but not by the process from which it was taken over.
    pub(crate) fn arrive(&mut self, arrival: &Arrival<'_>) -> Result<Epoch, Refusal> {
        let hello = arrival.hello;
        let service = service_of(arrival.identity)?;
        check_instance(&hello.instance)?;
        if hello.ports.len() > MAX_PORTS {
            return Err(Refusal::TooManyPorts(hello.ports.len()));
        }
        let before = self.sidecars.get(&hello.instance);
        if let Some(owner) = before.filter(|owner| owner.identity != *arrival.identity) {
            return Err(Refusal::InstanceTaken {
                instance: hello.instance.clone(),
                owner: owner.identity.clone(),
            });
        }
        if before.is_none() && self.sidecars.len() >= MAX_SIDECARS {
            return Err(Refusal::Full);
        }
        let addr = reachable(hello.mesh_addr, arrival.remote);
        let ousted = match before {
            Some(before) => before.make_way((hello.pid, addr))?,
            None => None,
        };
        self.last_epoch += 1;
        let mut ports = hello.ports.clone();
        ports.sort();
        ports.dedup();
        let sidecar = Sidecar {
            identity: arrival.identity.clone(),
            service,
            instance: hello.instance.clone(),
            version: hello.version.chars().take(64).collect(),
            pid: hello.pid,
            addr,
            ports,
            link: Link::Live(self.last_epoch),
            since_unix_ms: arrival.unix_ms,
            acked: None,
            nack: None,
            unsaved: None,
            serial: hello.serial.clone(),
            not_after_unix: arrival.not_after_unix,
            report: None,
            heard_unix_ms: arrival.unix_ms,
            trust_unix_ms: arrival.unix_ms,
            cut_before: 0,
            ousted,
            identity_from: hello.identity_from.as_deref().map(shown),
        };
        self.lost.remove(&hello.instance);
        self.sidecars.insert(hello.instance.clone(), sidecar);
        Ok(self.last_epoch)
    }

    /// Puts back an endpoint that the store still has from before a restart: gone, in grace.
    pub(crate) fn restore(
        &mut self,
        service: ServiceName,
        instance: &str,
        record: &EndpointRecord,
        identity: SpiffeId,
        (now, unix_ms): (Instant, u64),
    ) {
        self.sidecars
            .entry(instance.to_owned())
            .or_insert_with(|| Sidecar {
                identity,
                service,
                instance: instance.to_owned(),
                version: String::new(),
                pid: 0,
                addr: record.mesh_addr,
                ports: record.ports.clone(),
                link: Link::Gone(now),
                since_unix_ms: unix_ms,
                acked: None,
                nack: None,
                unsaved: None,
                serial: String::new(),
                not_after_unix: 0,
                report: None,
                heard_unix_ms: 0,
                trust_unix_ms: 0,
                cut_before: 0,
                ousted: None,
                identity_from: None,
            });
    }

    /// The sidecar of this connection, unless a later connection has replaced it.
    pub(crate) fn live_mut(&mut self, instance: &str, epoch: Epoch) -> Option<&mut Sidecar> {
        let sidecar = self.sidecars.get_mut(instance)?;
        (sidecar.link == Link::Live(epoch)).then_some(sidecar)
    }

    /// The connection broke: the grace begins.
    pub(crate) fn lose(
        &mut self,
        instance: &str,
        epoch: Epoch,
        now: Instant,
        unix_ms: u64,
    ) -> bool {
        let Some(sidecar) = self.live_mut(instance, epoch) else {
            return false;
        };
        sidecar.link = Link::Gone(now);
        sidecar.since_unix_ms = unix_ms;
        true
    }

    /// The sidecar said goodbye: no grace.
    pub(crate) fn leave(&mut self, instance: &str, epoch: Epoch) -> bool {
        let live = self.live_mut(instance, epoch).is_some();
        if live {
            self.sidecars.remove(instance);
        }
        live
    }

    /// Takes those out of the mesh whose grace is over, and says who they are. They are remembered as lost for a day.
    pub(crate) fn expire(&mut self, now: Instant, grace: Duration) -> Vec<Sidecar> {
        let over = |sidecar: &Sidecar| sidecar.gone().is_some_and(|since| since + grace <= now);
        let over: Vec<Sidecar> = self
            .sidecars
            .values()
            .filter(|s| over(s))
            .cloned()
            .collect();
        for sidecar in &over {
            self.sidecars.remove(&sidecar.instance);
            let mut sidecar = sidecar.clone();
            // What it said last is no news, and large.
            sidecar.report = None;
            self.lost.insert(sidecar.instance.clone(), sidecar);
        }
        self.lost
            .retain(|_, lost| lost.gone().is_some_and(|since| since + REMEMBERED > now));
        while self.lost.len() > MAX_LOST {
            let first = self.lost.values().min_by_key(|lost| lost.gone());
            let Some(first) = first.map(|lost| lost.instance.clone()) else {
                break;
            };
            self.lost.remove(&first);
        }
        over
    }

    /// When the next grace is over, or a lost one is to be forgotten.
    pub(crate) fn next_expiry(&self, grace: Duration) -> Option<Instant> {
        let graces = self.sidecars.values().filter_map(Sidecar::gone);
        let memories = self.lost.values().filter_map(Sidecar::gone);
        let graces = graces.map(|since| since + grace);
        graces.chain(memories.map(|since| since + REMEMBERED)).min()
    }

    /// Those that were lost within the last day and have not come back.
    pub(crate) fn lost(&self) -> impl Iterator<Item = &Sidecar> {
        self.lost.values()
    }

    /// All that are connected or in grace, by instance.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Sidecar> {
        self.sidecars.values()
    }
}

/// The service that an identity stands for.
pub(crate) fn service_of(identity: &SpiffeId) -> Result<ServiceName, Refusal> {
    identity
        .service()
        .and_then(|(namespace, name)| ServiceName::new(namespace, name).ok())
        .filter(|service| service.namespace() != weft_resources::SYSTEM_NAMESPACE)
        .ok_or_else(|| Refusal::NotAService(identity.clone()))
}

fn check_instance(instance: &str) -> Result<(), Refusal> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if (1..=63).contains(&instance.len()) && instance.bytes().all(legal) {
        return Ok(());
    }
    Err(Refusal::BadInstance(instance.chars().take(80).collect()))
}

/// An address that a sidecar names, as it may be shown.
fn shown(address: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    address.chars().map(plain).take(MAX_SHOWN).collect()
}

/// An unspecified address stands for the one that the connection comes from.
fn reachable(announced: SocketAddr, remote: IpAddr) -> SocketAddr {
    if announced.ip().is_unspecified() {
        SocketAddr::new(remote.to_canonical(), announced.port())
    } else {
        announced
    }
}

/// The whole of an acknowledgement's effect: what is in force, and whether a refusal is over.
pub(crate) fn acknowledge(sidecar: &mut Sidecar, ack: Ack, received: Instant) {
    if sidecar
        .nack
        .as_ref()
        .is_some_and(|nack| ack.revision >= nack.revision)
    {
        sidecar.nack = None;
    }
    sidecar.unsaved.clone_from(&ack.unsaved);
    let newer = |acked: &Acked| ack.revision > acked.ack.revision;
    if sidecar.acked.as_ref().is_none_or(newer) {
        sidecar.acked = Some(Acked { ack, received });
    }
}

/// The whole of a report's effect. True if a certificate or a trust changed, which others may wait for; the rest of a
/// report wakes nobody.
pub(crate) fn hear(sidecar: &mut Sidecar, mut report: Report, unix_ms: u64) -> bool {
    // What a sidecar may take of this node's memory is not for the sidecar to say.
    report.connections.truncate(MAX_CONNECTIONS);
    report.unreachable.truncate(MAX_UNREACHABLE);
    let renewed = sidecar.serial != report.serial || sidecar.issuer() != report.issuer;
    let editions = |trust: &TrustReport| (trust.sequence, trust.revoked);
    let before = sidecar.trust().map(editions);
    let trusts_anew = before != report.trust.as_ref().map(editions);
    if renewed {
        sidecar.heard_unix_ms = unix_ms;
    }
    if trusts_anew {
        sidecar.trust_unix_ms = unix_ms;
        sidecar.cut_before = match (sidecar.trust(), &report.trust) {
            (Some(before), _) => before.cut,
            // Its first word: what it cut before is not known to belong to this.
            (None, Some(first)) => first.cut,
            (None, None) => 0,
        };
    }
    sidecar.unsaved.clone_from(&report.unsaved);
    sidecar.serial.clone_from(&report.serial);
    sidecar.not_after_unix = report.not_after_unix;
    sidecar.report = Some(report);
    renewed || trusts_anew
}

#[cfg(test)]
mod tests;
