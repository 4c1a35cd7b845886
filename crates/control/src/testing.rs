//! Shared by the tests of this crate.

use std::time::{Duration, UNIX_EPOCH};

use weft_certs::{PeerIdentity, SpiffeId};
use weft_wire::{EndpointRecord, Hello, PROTOCOL, PortRecord, Protocol};

/// Identity of a service in the default namespace.
pub(crate) fn id(service: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://weft.local/ns/default/sa/{service}")).unwrap()
}

pub(crate) fn hello(instance: &str) -> Hello {
    Hello {
        protocol: PROTOCOL,
        version: "0.1.0".into(),
        instance: instance.into(),
        mesh_addr: "127.0.0.1:15008".parse().unwrap(),
        ports: vec![PortRecord {
            port: 80,
            protocol: Protocol::Http,
        }],
        revision: None,
        serial: "01".into(),
        pid: 7,
    }
}

pub(crate) fn endpoint(service: &str) -> EndpointRecord {
    EndpointRecord {
        spiffe_id: id(service).to_string(),
        mesh_addr: "127.0.0.1:15008".parse().unwrap(),
        ports: hello("x").ports,
    }
}

/// A verified peer of the default namespace.
pub(crate) fn peer(service: &str) -> PeerIdentity {
    PeerIdentity {
        id: id(service),
        serial: "01".into(),
        not_after: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
        fingerprint: "00".into(),
    }
}
