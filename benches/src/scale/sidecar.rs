//! A sidecar without a proxy: it joins, syncs, acknowledges and renews, and remembers when what came.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, Uri};
use serde::{Deserialize, Serialize};
use weft_ca::make_csr;
use weft_certs::{
    BundleSet, CertificateDer, IdentitySource, PrivateKey, SpiffeId, TrustBundle, TrustDomain,
    X509Svid,
};
use weft_env::Tasks;
use weft_transport::{
    Connection, Endpoint, JoinConfig, KeyExchange, RecvStream, SendStream, Target, TransportConfig,
    join_connection,
};
use weft_wire::{
    Ack, CONTROL_AUTHORITY, FrameReader, Hello, JoinRequest, JoinResponse, PATH_JOIN, PATH_RENEW,
    PATH_SYNC, PROTOCOL, PortRecord, Protocol, RenewRequest, SidecarMessage, encode,
};

use super::control::{Control, said};
use crate::error::{Error, Result};

/// An answer, or the wish to be asked later.
pub(super) enum Signed<T> {
    Yes(T),
    /// The node signs no more in this second.
    Limited,
}

/// What a sidecar has: the newest revision, and when it came.
#[derive(Debug)]
pub(super) struct Seen {
    origin: Instant,
    revision: AtomicU64,
    at_us: AtomicU64,
}

impl Seen {
    pub(super) fn new(origin: Instant) -> Arc<Self> {
        Arc::new(Self {
            origin,
            revision: AtomicU64::new(0),
            at_us: AtomicU64::new(0),
        })
    }

    fn note(&self, revision: u64) {
        let at = u64::try_from(self.origin.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.at_us.store(at, Ordering::Relaxed);
        self.revision.store(revision, Ordering::Release);
    }

    /// The newest revision.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// When it came, since the origin.
    pub(super) fn at(&self) -> Duration {
        Duration::from_micros(self.at_us.load(Ordering::Relaxed))
    }
}

/// What of a message matters here; the rest is skipped without being kept.
#[derive(Deserialize)]
struct Light {
    #[serde(default)]
    revision: Option<u64>,
}

fn control_id() -> Result<SpiffeId> {
    SpiffeId::parse("spiffe://weft.local/ns/weft-system/sa/control").map_err(said)
}

/// An identity for a service.
pub(super) async fn join(
    control: &Control,
    tasks: &Tasks,
    token: &str,
) -> Result<Signed<Arc<IdentitySource>>> {
    let config = JoinConfig {
        pin: control.pin,
        expected: control_id()?,
        key_exchange: KeyExchange::Preferred,
        fallback: true,
    };
    let connection = join_connection(&control.env, tasks, control.mesh, &config)
        .await
        .map_err(said)?;
    let key = make_csr(None).map_err(said)?;
    let request = JoinRequest {
        now_unix_ms: None,
        token: token.to_owned(),
        csr: STANDARD.encode(&key.csr),
        attestation: None,
    };
    Ok(match call(&connection, PATH_JOIN, &request).await? {
        Signed::Yes(reply) => {
            let (svid, bundles) = identity(&reply, key.key.into())?;
            Signed::Yes(IdentitySource::new(svid, bundles))
        }
        Signed::Limited => Signed::Limited,
    })
}

fn identity(reply: &JoinResponse, key: PrivateKey) -> Result<(X509Svid, BundleSet)> {
    let mut chain = Vec::new();
    for text in &reply.chain {
        chain.push(CertificateDer::from(STANDARD.decode(text).map_err(said)?));
    }
    let mut bundles = Vec::new();
    for (name, jwks) in &reply.bundles {
        let domain = TrustDomain::parse(name).map_err(said)?;
        bundles.push(TrustBundle::from_jwks(domain, jwks).map_err(said)?);
    }
    Ok((
        X509Svid::new(chain, key).map_err(said)?,
        bundles.into_iter().collect(),
    ))
}

fn head(path: &str) -> Result<Request<()>> {
    let uri = Uri::builder()
        .scheme("https")
        .authority(CONTROL_AUTHORITY)
        .path_and_query(path);
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri.build().map_err(said)?;
    Ok(request)
}

async fn call(
    connection: &Connection,
    path: &str,
    body: &impl Serialize,
) -> Result<Signed<JoinResponse>> {
    let body = Bytes::from(serde_json::to_vec(body).map_err(said)?);
    let exchange = connection
        .request_with(&head(path)?, body, true)
        .await
        .map_err(said)?;
    let mut recv = exchange.recv;
    let response = recv.response().await.map_err(said)?;
    let body = whole(&mut recv).await?;
    match response.status() {
        StatusCode::TOO_MANY_REQUESTS => Ok(Signed::Limited),
        status if status.is_success() => {
            serde_json::from_slice(&body).map(Signed::Yes).map_err(said)
        }
        status => Err(Error::Protocol(format!(
            "{status}: {}",
            String::from_utf8_lossy(&body)
        ))),
    }
}

async fn whole(recv: &mut RecvStream) -> Result<Bytes> {
    let mut body = BytesMut::new();
    while let Some(piece) = recv.data().await.map_err(said)? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// A sidecar whose sync stream is open.
pub(super) struct Sidecar {
    pub(super) connection: Connection,
    identity: Arc<IdentitySource>,
    send: SendStream,
    recv: RecvStream,
    _endpoint: Endpoint,
}

impl Sidecar {
    /// Connects and says hello.
    pub(super) async fn connect(
        control: &Control,
        tasks: &Tasks,
        identity: &Arc<IdentitySource>,
        instance: usize,
    ) -> Result<Self> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let config = TransportConfig::new(any, Arc::clone(identity));
        let endpoint = Endpoint::bind(config, &control.env, &tasks.child())
            .await
            .map_err(said)?;
        let target = Target::control(control.mesh, control_id()?);
        let connection = endpoint.pool().connection(&target).await.map_err(said)?;
        let hello = Hello {
            protocol: PROTOCOL,
            version: "bench".into(),
            instance: format!("bench-{instance}"),
            mesh_addr: SocketAddr::from((Ipv4Addr::UNSPECIFIED, endpoint.local_addr().port())),
            ports: vec![PortRecord {
                port: 80,
                protocol: Protocol::Http,
            }],
            revision: None,
            serial: identity.current().svid.serial().to_owned(),
            pid: std::process::id(),
            identity_from: None,
        };
        let hello = encode(&SidecarMessage::Hello(hello)).map_err(said)?;
        let exchange = connection
            .request_with(&head(PATH_SYNC)?, hello, false)
            .await
            .map_err(said)?;
        let (send, mut recv) = (exchange.send, exchange.recv);
        let response = recv.response().await.map_err(said)?;
        if !response.status().is_success() {
            let body = whole(&mut recv).await?;
            return Err(Error::Protocol(String::from_utf8_lossy(&body).into_owned()));
        }
        Ok(Self {
            connection,
            identity: Arc::clone(identity),
            send,
            recv,
            _endpoint: endpoint,
        })
    }

    /// Acknowledges whatever comes, until the stream ends.
    pub(super) async fn live(mut self, seen: Arc<Seen>) -> Result<()> {
        let mut reader = FrameReader::new();
        loop {
            while let Some(message) = reader.next_message::<Light>().map_err(said)? {
                let Some(revision) = message.revision else {
                    continue;
                };
                seen.note(revision);
                let ack = SidecarMessage::Ack(Ack {
                    revision,
                    in_force_unix_ms: 1,
                    took_us: 1,
                    unsaved: None,
                });
                self.send
                    .send_data(encode(&ack).map_err(said)?)
                    .await
                    .map_err(said)?;
            }
            match self.recv.data().await.map_err(said)? {
                Some(bytes) => reader.push(&bytes),
                None => return Ok(()),
            }
        }
    }

    /// What is needed to renew on its connection.
    pub(super) fn renewer(&self) -> Renewer {
        Renewer {
            connection: self.connection.clone(),
            id: self.identity.current().svid.id().clone(),
        }
    }
}

/// Asks for new certificates, and throws them away.
#[derive(Clone)]
pub(super) struct Renewer {
    connection: Connection,
    id: SpiffeId,
}

impl Renewer {
    pub(super) async fn renew(&self) -> Result<Signed<()>> {
        let key = make_csr(Some(&self.id)).map_err(said)?;
        let request = RenewRequest {
            csr: STANDARD.encode(&key.csr),
        };
        Ok(match call(&self.connection, PATH_RENEW, &request).await? {
            Signed::Yes(_) => Signed::Yes(()),
            Signed::Limited => Signed::Limited,
        })
    }
}
