//! What every part of a running sidecar shares.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use weft_certs::{BundleSet, IdentitySource, SpiffeId, VerifyError};
use weft_env::{Env, Tasks};
use weft_resources::ServiceName;
use weft_telemetry::{Party, Side, Telemetry};
use weft_transport::{Carrier, Pool, Relay};

use crate::admin::Readiness;
use crate::dice::Dice;
use crate::handover::doors::Doors;
use crate::provider::Provider;
use crate::running::Running;

/// Connections of the own application on the outbound HTTP listener; more wait in the kernel's queue.
const MAX_HTTP: usize = 8_192;
/// Local TCP connections on all ports together; more wait in the kernel's queues.
const MAX_TCP: usize = 4_096;

/// The sidecar.
pub(crate) struct Node {
    pub(crate) env: Env,
    pub(crate) telemetry: Telemetry,
    pub(crate) readiness: Readiness,
    pub(crate) identity: Arc<IdentitySource>,
    /// Where the identity comes from, if not from the mesh's own CA.
    pub(crate) provider: Option<Arc<Provider>>,
    /// Whom this sidecar stands for.
    pub(crate) service: ServiceName,
    pub(crate) id: SpiffeId,
    pub(crate) pool: Pool,
    pub(crate) doors: Arc<Doors>,
    /// The mesh socket, where it can be given to another process.
    pub(crate) relay: Option<Relay>,
    /// What requests follow; none before the first snapshot.
    pub(crate) running: ArcSwapOption<Running>,
    pub(crate) dice: Dice,
    pub(crate) outbound: Face,
    pub(crate) inbound: Face,
    /// What every tunnel says of the caller's service, beside its certificate.
    pub(crate) baggage: HeaderValue,
    /// This service as one end of an edge.
    pub(crate) party: Party,
    /// Stands where there is no peer, rule or authority.
    pub(crate) nothing: Arc<str>,
    /// The accept loops: ended first.
    pub(crate) listening: Tasks,
    /// Requests and connections under way: they get time to end.
    pub(crate) traffic: Tasks,
    /// Connections to the own application, which end with those who use them.
    pub(crate) apps: Tasks,
    pub(crate) http_places: Arc<Semaphore>,
    pub(crate) tcp_places: Arc<Semaphore>,
    /// How long the application may take from the end of one request to the end of the next one's head.
    pub(crate) head_timeout: Duration,
    /// When what is still under way at the end is cut.
    pub(crate) deadline: Deadline,
    started: Instant,
}

/// One half of the sidecar, as others see it.
#[derive(Debug)]
pub(crate) struct Face {
    pub(crate) side: Side,
    /// `<service>.<namespace>/<side>`, in `proxy-status`.
    pub(crate) node: Arc<str>,
    /// This node's entry in `via` (RFC 9110 §7.6.3): the version that the message came in, and a name.
    pub(crate) via: HeaderValue,
    /// The same for a message that came over TCP.
    via_http2: HeaderValue,
    pub(crate) deadline: Deadline,
}

/// A caller on this machine is told so long before a cut that its request gets no answer: time enough to write that, also
/// where many are told at once.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// When what is under way is cut, once the sidecar is at its end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Deadline {
    at: Arc<Mutex<Option<Instant>>>,
    near: CancellationToken,
}

impl Deadline {
    /// Cuts at `at` what is under way then.
    pub(crate) fn set(&self, at: Instant) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Whether it is over.
    pub(crate) fn passed(&self) -> bool {
        let at = *self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.is_some_and(|at| Instant::now() >= at)
    }

    /// Waits until shortly before a cut that comes after `left`, and lets [`near`](Self::near) resolve.
    pub(crate) async fn approach(&self, left: Duration) {
        sleep(left - LAST_WORDS.min(left / 4)).await;
        self.near.cancel();
    }

    /// Resolves shortly before the cut.
    pub(crate) async fn near(&self) {
        self.near.cancelled().await;
    }
}

impl Face {
    fn new(side: Side, service: &ServiceName, received: &str, deadline: &Deadline) -> Self {
        let via = |version: &str| {
            HeaderValue::try_from(format!("{version} {service}"))
                .expect("names of services are visible ASCII")
        };
        Self {
            side,
            node: format!("{service}/{side}").into(),
            via: via(received),
            via_http2: via("2"),
            deadline: deadline.clone(),
        }
    }

    /// The entry for a message that the mesh brought.
    pub(crate) fn via_from(&self, carrier: Option<Carrier>) -> &HeaderValue {
        match carrier {
            Some(Carrier::Tcp) => &self.via_http2,
            Some(Carrier::Quic) | None => &self.via,
        }
    }
}

/// What a node is made of.
pub(crate) struct Parts {
    pub(crate) env: Env,
    pub(crate) telemetry: Telemetry,
    pub(crate) readiness: Readiness,
    pub(crate) identity: Arc<IdentitySource>,
    pub(crate) provider: Option<Arc<Provider>>,
    pub(crate) service: ServiceName,
    pub(crate) pool: Pool,
    pub(crate) doors: Arc<Doors>,
    pub(crate) relay: Option<Relay>,
    pub(crate) listening: Tasks,
    pub(crate) traffic: Tasks,
    pub(crate) apps: Tasks,
    pub(crate) head_timeout: Duration,
}

fn baggage(service: &ServiceName) -> HeaderValue {
    let (namespace, name) = (service.namespace(), service.name());
    HeaderValue::try_from(format!(
        "k8s.namespace.name={namespace},service.name={name}"
    ))
    .expect("names of services are visible ASCII")
}

impl Node {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let id = parts.identity.current().svid.id().clone();
        let service = parts.service;
        let deadline = Deadline::default();
        Arc::new(Self {
            party: Party::service(service.namespace(), service.name(), id.as_str()),
            baggage: baggage(&service),
            outbound: Face::new(Side::Outbound, &service, "1.1", &deadline),
            inbound: Face::new(Side::Inbound, &service, "3", &deadline),
            dice: Dice::new(&parts.env, "data-path"),
            running: ArcSwapOption::empty(),
            nothing: Arc::from(""),
            http_places: Arc::new(Semaphore::new(MAX_HTTP)),
            tcp_places: Arc::new(Semaphore::new(MAX_TCP)),
            head_timeout: parts.head_timeout,
            deadline,
            started: Instant::now(),
            env: parts.env,
            telemetry: parts.telemetry,
            readiness: parts.readiness,
            identity: parts.identity,
            provider: parts.provider,
            pool: parts.pool,
            doors: parts.doors,
            relay: parts.relay,
            listening: parts.listening,
            traffic: parts.traffic,
            apps: parts.apps,
            service,
            id,
        })
    }

    /// The identity that a service of this mesh has.
    pub(crate) fn service_id(&self, service: &ServiceName) -> String {
        let domain = self.id.trust_domain();
        SpiffeId::for_service(domain, service.namespace(), service.name())
            .map_or_else(|_| "unknown".to_owned(), |id| id.to_string())
    }

    /// Trusts whom the control node names. False if that is as it was.
    pub(crate) fn trust(&self, bundles: BundleSet) -> Result<bool, VerifyError> {
        let (identity, now) = (&self.identity, self.env.wall());
        if let Some(provider) = &self.provider {
            return provider.push(bundles, identity, now);
        }
        if *identity.current().bundles == bundles {
            return Ok(false);
        }
        identity.replace_bundles(bundles, now).map(|()| true)
    }

    /// Whom the control node has named, as it is kept for the next start.
    pub(crate) fn trusted(&self) -> Arc<BundleSet> {
        match &self.provider {
            Some(provider) => Arc::new(provider.pushed()),
            None => Arc::clone(&self.identity.current().bundles),
        }
    }

    /// The time that balancing reckons in.
    pub(crate) fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}
