//! What is said of a caller in every request, made once per certificate.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use http::HeaderValue;
use weft_certs::{PeerIdentity, SpiffeId};
use weft_telemetry::{Edge, EdgeKey, Party, Protocol, Reporter, Telemetry};

use crate::node::Node;
use crate::xfcc;

/// Certificates of callers that are kept. Each renewal makes a new one, so old ones must go.
const MAX_CALLERS: usize = 4_096;

/// A caller by one certificate.
pub(crate) struct Caller {
    pub(crate) id: SpiffeId,
    pub(crate) id_text: Arc<str>,
    /// Value of `x-forwarded-client-cert`.
    pub(crate) xfcc: HeaderValue,
    key: EdgeKey,
    telemetry: Telemetry,
    http: OnceLock<Edge>,
    tcp: OnceLock<Edge>,
}

impl Caller {
    /// Where its calls are counted.
    pub(crate) fn edge(&self, tunnel: bool) -> &Edge {
        let (slot, protocol) = if tunnel {
            (&self.tcp, Protocol::Tcp)
        } else {
            (&self.http, Protocol::Http)
        };
        slot.get_or_init(|| {
            self.telemetry.edge(&EdgeKey {
                protocol,
                ..self.key.clone()
            })
        })
    }
}

/// The callers seen, by the hash of their certificate.
pub(crate) struct Callers {
    own: SpiffeId,
    party: Party,
    telemetry: Telemetry,
    known: RwLock<BTreeMap<String, Arc<Caller>>>,
}

impl Callers {
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            own: node.id.clone(),
            party: node.party.clone(),
            telemetry: node.telemetry.clone(),
            known: RwLock::default(),
        }
    }

    pub(crate) fn get(&self, peer: &PeerIdentity) -> Arc<Caller> {
        {
            let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
            if let Some(caller) = known.get(&peer.fingerprint) {
                return Arc::clone(caller);
            }
        }
        let caller = Arc::new(self.caller(peer));
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_CALLERS {
            // Most of them are certificates that have been renewed since; the others come back.
            known.clear();
        }
        known.insert(peer.fingerprint.clone(), Arc::clone(&caller));
        caller
    }

    fn caller(&self, peer: &PeerIdentity) -> Caller {
        let source = match peer.id.service() {
            Some((namespace, name)) => Party::service(namespace, name, peer.id.as_str()),
            None => Party::service("unknown", "unknown", peer.id.as_str()),
        };
        Caller {
            id: peer.id.clone(),
            id_text: peer.id.as_str().into(),
            xfcc: xfcc::element(&self.own, peer),
            key: EdgeKey {
                reporter: Reporter::Destination,
                source,
                destination: self.party.clone(),
                protocol: Protocol::Http,
            },
            telemetry: self.telemetry.clone(),
            http: OnceLock::new(),
            tcp: OnceLock::new(),
        }
    }
}
