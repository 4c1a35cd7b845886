//! Shared by the tests of this crate.

use std::time::{Duration, UNIX_EPOCH};

use weft_certs::{Clock, PeerIdentity, SpiffeId};
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
        identity_from: None,
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

/// A wall clock that stands still.
pub(crate) fn clock() -> Clock {
    std::sync::Arc::new(|| UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

/// An authority of its own in an empty directory.
pub(crate) async fn authority(
    env: &weft_env::Env,
    dir: &std::path::Path,
) -> (
    std::sync::Arc<dyn crate::store::Store>,
    crate::issue::CaService,
) {
    use crate::store::{RedbStore, Store, Txn};
    let path = dir.join("store.redb");
    let store: std::sync::Arc<dyn Store> =
        std::sync::Arc::new(RedbStore::open(env, &path).await.unwrap());
    let keys: crate::issue::Keys = std::sync::Arc::new(weft_ca::MemoryKeyStore::new());
    let settings = settings();
    let (txn, _) = crate::issue::CaService::create(env, keys.clone(), &settings, Txn::new())
        .await
        .unwrap();
    store.commit(txn).await.unwrap();
    let audit = crate::audit::Audit::load(env, store.clone()).await.unwrap();
    let ca = crate::issue::CaService::load(env, store.clone(), keys, &settings, audit);
    let ca = ca.await.unwrap();
    (store, ca)
}

/// The defaults.
pub(crate) fn settings() -> crate::settings::MeshSettings {
    let text = r#"{"trust_domain": "weft.local", "leaf_ttl_s": 3600, "issuing_ttl_s": 2592000, "root_ttl_s": 315532800}"#;
    serde_json::from_str(text).unwrap()
}
