//! A sidecar without a proxy: it joins, syncs, acknowledges, renews and reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::{Method, Request, Uri};
use serde::Serialize;
use serde_json::Value;
use tokio::time::timeout;
use weft_ca::make_csr;
use weft_certs::{
    BundleSet, CertificateDer, IdentitySource, RevocationList, RootPin, SpiffeId, TrustBundle,
    TrustDomain, X509Svid, serial_of,
};
use weft_env::BoxFuture;
use weft_transport::{
    Connection, DialError, Endpoint, Handler, JoinConfig, KeyExchange, RequestError, ServerRequest,
    Target, TransportConfig, join_connection,
};
use weft_transport::{RecvStream, SendStream};
use weft_wire::{
    Ack, CONTROL_AUTHORITY, ControlMessage, FrameReader, Hello, JoinRequest, JoinResponse, Nack,
    PATH_JOIN, PATH_RENEW, PATH_SYNC, PROTOCOL, PortRecord, Problem, Protocol, RenewRequest,
    Report, ResourcePath, SidecarMessage, TrustReport, Update, encode,
};

use super::{Control, PROMPT};

/// Why a request to the control node did not work.
#[derive(Debug)]
pub enum Failed {
    Dial(DialError),
    Refused(u16, Problem),
    Broken(String),
}

impl Failed {
    /// The word for programs.
    pub fn code(&self) -> String {
        match self {
            Self::Dial(error) => error.reason().to_owned(),
            Self::Refused(_, problem) => problem.code.clone(),
            Self::Broken(reason) => reason.clone(),
        }
    }
}

pub fn control_id() -> SpiffeId {
    SpiffeId::parse("spiffe://weft.local/ns/weft-system/sa/control").unwrap()
}

fn head(path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::builder()
        .scheme("https")
        .authority(CONTROL_AUTHORITY)
        .path_and_query(path)
        .build()
        .unwrap();
    request
}

/// One JSON request for an SVID.
pub async fn call(
    connection: &Connection,
    path: &str,
    body: &impl Serialize,
) -> Result<JoinResponse, Failed> {
    ask(connection, path, body).await
}

/// One JSON request.
pub async fn ask<A: serde::de::DeserializeOwned>(
    connection: &Connection,
    path: &str,
    body: &impl Serialize,
) -> Result<A, Failed> {
    let broken = |error: &dyn std::fmt::Display| Failed::Broken(error.to_string());
    let body = Bytes::from(serde_json::to_vec(body).unwrap());
    let exchange = timeout(PROMPT, async {
        let exchange = connection.request_with(&head(path), body, true).await;
        let mut recv = exchange.map_err(|error| broken(&error))?.recv;
        let response = recv.response().await.map_err(|error| broken(&error))?;
        let body = whole(&mut recv).await.map_err(Failed::Broken)?;
        if response.status().is_success() {
            return Ok(serde_json::from_slice(&body).unwrap());
        }
        let problem = serde_json::from_slice(&body).unwrap();
        Err(Failed::Refused(response.status().as_u16(), problem))
    });
    exchange.await.expect("an answer in time")
}

async fn whole(recv: &mut RecvStream) -> Result<Bytes, String> {
    let mut body = BytesMut::new();
    while let Some(piece) = recv.data().await.map_err(|error| error.to_string())? {
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// An SVID for a token.
pub async fn join(
    control: &Control,
    pin: RootPin,
    token: &str,
) -> Result<(X509Svid, BundleSet), Failed> {
    let config = JoinConfig {
        pin,
        expected: control_id(),
        key_exchange: KeyExchange::Preferred,
        fallback: true,
    };
    let addr = control.ready.mesh;
    let connection = join_connection(&control.env, &control.tasks, addr, &config)
        .await
        .map_err(Failed::Dial)?;
    let key = make_csr(None).unwrap();
    let request = JoinRequest {
        now_unix_ms: None,
        token: token.to_owned(),
        csr: STANDARD.encode(&key.csr),
        attestation: None,
    };
    let reply = call(&connection, PATH_JOIN, &request).await?;
    Ok(identity(&reply, key.key))
}

fn identity(reply: &JoinResponse, key: impl Into<weft_certs::PrivateKey>) -> (X509Svid, BundleSet) {
    let chain: Vec<CertificateDer<'static>> = reply
        .chain
        .iter()
        .map(|text| CertificateDer::from(STANDARD.decode(text).unwrap()))
        .collect();
    let bundles = reply.bundles.iter().map(|(name, jwks)| {
        TrustBundle::from_jwks(TrustDomain::parse(name).unwrap(), jwks).unwrap()
    });
    (X509Svid::new(chain, key).unwrap(), bundles.collect())
}

fn label(error: &DialError) -> &'static str {
    match error {
        DialError::RejectedByPeer { reason, .. } => reason,
        DialError::Backoff { last, .. } => label(last),
        other => other.reason(),
    }
}

/// Answers nothing.
pub struct Silent;

impl Handler for Silent {
    fn handle(&self, _request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async {})
    }
}

/// A joined sidecar.
pub struct Sidecar {
    pub identity: Arc<IdentitySource>,
    pub instance: String,
    pub endpoint: Endpoint,
    env: weft_env::Env,
}

impl Sidecar {
    /// Joins with a new token.
    pub async fn join(control: &Control, service: &str, instance: &str) -> Self {
        let token = control.token(service, 600).await;
        let (svid, bundles) = join(control, control.pin(), &token).await.unwrap();
        let identity = IdentitySource::new(svid, bundles);
        let config = TransportConfig::new("127.0.0.1:0".parse().unwrap(), identity.clone());
        let endpoint = Endpoint::bind(config, &control.env, &control.tasks.child())
            .await
            .unwrap();
        Self {
            identity,
            instance: instance.to_owned(),
            endpoint,
            env: control.env.clone(),
        }
    }

    /// The same sidecar after a restart, towards a control node that was started again.
    pub async fn moved(self, control: &Control) -> Self {
        let config = TransportConfig::new("127.0.0.1:0".parse().unwrap(), self.identity.clone());
        let endpoint = Endpoint::bind(config, &control.env, &control.tasks.child())
            .await
            .unwrap();
        Self { endpoint, ..self }
    }

    /// Whether this peer lets us in: `connected`, or the label of its refusal. In TLS 1.3 a dialler hears of a refusal
    /// only after its own handshake.
    pub async fn dial_once(&self, target: &Target) -> &'static str {
        let connection = match self.endpoint.pool().connection(target).await {
            Ok(connection) => connection,
            Err(error) => return label(&error),
        };
        let answered = async {
            let exchange = connection.request(&head("/nothing")).await.ok()?;
            let mut recv = exchange.recv;
            recv.response().await.ok()
        };
        if timeout(PROMPT, answered)
            .await
            .expect("an answer in time")
            .is_some()
        {
            return "connected";
        }
        timeout(PROMPT, connection.retired())
            .await
            .expect("an end in time");
        match connection.request(&head("/nothing")).await {
            Err(RequestError::Dial(error)) => label(&error),
            Err(_) => "lost",
            Ok(_) => "connected",
        }
    }

    pub async fn dial(&self, addr: SocketAddr) -> Result<Connection, DialError> {
        let target = Target::control(addr, control_id());
        self.endpoint.pool().connection(&target).await
    }

    /// Dials until the control node is there.
    pub async fn dial_patiently(&self, addr: SocketAddr) -> Connection {
        timeout(PROMPT, async {
            let mut again = tokio::time::interval(std::time::Duration::from_millis(20));
            loop {
                again.tick().await;
                if let Ok(connection) = self.dial(addr).await {
                    return connection;
                }
            }
        })
        .await
        .expect("the control node answers in time")
    }

    pub fn hello(&self) -> Hello {
        Hello {
            protocol: PROTOCOL,
            version: "test".into(),
            instance: self.instance.clone(),
            mesh_addr: SocketAddr::new(
                "0.0.0.0".parse().unwrap(),
                self.endpoint.local_addr().port(),
            ),
            ports: vec![PortRecord {
                port: 80,
                protocol: Protocol::Http,
            }],
            revision: None,
            serial: self.identity.current().svid.serial().to_owned(),
            pid: std::process::id(),
            identity_from: None,
        }
    }

    /// Opens the sync stream.
    pub async fn sync(&self, addr: SocketAddr) -> Result<Sync, Failed> {
        let connection = self.dial_patiently(addr).await;
        self.sync_on(connection).await
    }

    pub async fn sync_on(&self, connection: Connection) -> Result<Sync, Failed> {
        let greeting = encode(&SidecarMessage::Hello(self.hello())).unwrap();
        let opened = timeout(PROMPT, async {
            let exchange = connection
                .request_with(&head(PATH_SYNC), greeting, false)
                .await
                .map_err(|error| Failed::Broken(error.to_string()))?;
            let (send, mut recv) = (exchange.send, exchange.recv);
            let response = recv.response().await;
            let response = response.map_err(|error| Failed::Broken(error.to_string()))?;
            if !response.status().is_success() {
                let body = whole(&mut recv).await.map_err(Failed::Broken)?;
                let problem = serde_json::from_slice(&body).unwrap();
                return Err(Failed::Refused(response.status().as_u16(), problem));
            }
            Ok(Sync {
                connection,
                send,
                recv,
                reader: FrameReader::new(),
                known: BTreeMap::new(),
                revision: 0,
            })
        });
        opened.await.expect("an answer to the greeting in time")
    }

    /// Takes a new SVID over the connection.
    pub async fn renew(&self, connection: &Connection) -> Result<(), Failed> {
        let id = self.identity.current().svid.id().clone();
        let key = make_csr(Some(&id)).unwrap();
        let request = RenewRequest {
            csr: STANDARD.encode(&key.csr),
        };
        let reply = call(connection, PATH_RENEW, &request).await?;
        let (svid, bundles) = identity(&reply, key.key);
        self.identity
            .replace(svid, bundles, self.env.wall())
            .unwrap();
        Ok(())
    }

    /// Trusts, and distrusts, what is known by now. The report of it follows when it is enforced.
    pub async fn take_trust(&self, known: &BTreeMap<String, Value>) {
        let mut bundles = BundleSet::new();
        for (key, value) in known {
            match key.parse::<ResourcePath>() {
                Ok(ResourcePath::Trust { trust_domain }) => {
                    let domain = TrustDomain::parse(&trust_domain).unwrap();
                    bundles.insert(TrustBundle::from_jwks(domain, value).unwrap());
                }
                Ok(ResourcePath::Revoked { trust_domain }) => {
                    let domain = TrustDomain::parse(&trust_domain).unwrap();
                    let list: RevocationList = serde_json::from_value(value.clone()).unwrap();
                    bundles.revoke(domain, list);
                }
                _ => {}
            }
        }
        let current = self.identity.current();
        if bundles.is_empty() || *current.bundles == bundles {
            return;
        }
        self.identity
            .replace_bundles(bundles, self.env.wall())
            .unwrap();
        let wanted = self.identity.current().bundle_generation;
        let mut enforced = self.endpoint.enforced();
        let done = enforced.wait_for(|enforced| enforced.bundle_generation >= wanted);
        timeout(PROMPT, done)
            .await
            .expect("enforced in time")
            .unwrap();
    }

    fn trust(&self) -> TrustReport {
        let identity = self.identity.current();
        let domain = TrustDomain::parse("weft.local").unwrap();
        let now = self
            .env
            .wall()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        TrustReport {
            sequence: identity.bundles.get(&domain).map_or(0, |b| b.sequence),
            revoked: identity.bundles.revoked(&domain).map_or(0, |l| l.edition),
            in_force_unix_ms: u64::try_from(now.as_millis()).unwrap(),
            cut: self.endpoint.enforced().borrow().cut,
        }
    }

    pub fn report(&self) -> Report {
        let svid = self.identity.current().svid.clone();
        let end = svid.not_after().duration_since(std::time::UNIX_EPOCH);
        Report {
            serial: svid.serial().to_owned(),
            issuer: serial_of(&svid.chain()[1]).unwrap(),
            not_after_unix: end.unwrap().as_secs(),
            trust: Some(self.trust()),
            ..Report::default()
        }
    }

    /// Does everything that a sidecar does, until the stream ends; then again on a new one.
    pub async fn live(&self, addr: SocketAddr) {
        loop {
            let Ok(mut sync) = self.sync(addr).await else {
                continue;
            };
            let _ = sync
                .say(&SidecarMessage::Report(Box::new(self.report())))
                .await;
            while let Ok(message) = sync.next().await {
                match message {
                    ControlMessage::Update(update) => {
                        sync.follow(&update);
                        self.take_trust(&sync.known).await;
                        let _ = sync.ack(update.revision).await;
                        let report = Box::new(self.report());
                        let _ = sync.say(&SidecarMessage::Report(report)).await;
                    }
                    ControlMessage::Renew(_) => {
                        // That of the stream takes no more requests once its SVID was replaced.
                        let connection = self.dial_patiently(addr).await;
                        self.renew(&connection).await.unwrap();
                        let report = Box::new(self.report());
                        let _ = sync.say(&SidecarMessage::Report(report)).await;
                    }
                    ControlMessage::Unknown => {}
                }
            }
        }
    }
}

/// An open sync stream.
pub struct Sync {
    pub connection: Connection,
    pub known: BTreeMap<String, Value>,
    pub revision: u64,
    send: SendStream,
    recv: RecvStream,
    reader: FrameReader,
}

impl Sync {
    /// The next message, however long it takes.
    pub async fn next(&mut self) -> Result<ControlMessage, String> {
        loop {
            let message = self.reader.next_message();
            if let Some(message) = message.map_err(|error| error.to_string())? {
                return Ok(message);
            }
            match self.recv.data().await.map_err(|error| error.to_string())? {
                Some(bytes) => self.reader.push(&bytes),
                None => return Err("the stream ended".to_owned()),
            }
        }
    }

    /// The next update, taken in.
    pub async fn update(&mut self) -> Update {
        let next = timeout(PROMPT, self.next()).await;
        match next.expect("an update in time").expect("an open stream") {
            ControlMessage::Update(update) => {
                self.follow(&update);
                update
            }
            other => panic!("expected an update: {other:?}"),
        }
    }

    /// Updates until the known map is as wanted.
    pub async fn until(&mut self, wanted: impl Fn(&BTreeMap<String, Value>) -> bool) {
        while !wanted(&self.known) {
            self.update().await;
        }
    }

    pub fn follow(&mut self, update: &Update) {
        assert!(update.revision >= self.revision, "revisions never go back");
        self.revision = update.revision;
        if update.whole {
            self.known.clear();
        }
        for key in &update.unset {
            self.known.remove(key);
        }
        self.known.extend(update.set.clone());
    }

    pub fn endpoints(&self) -> Vec<&str> {
        let keys = self.known.keys().map(String::as_str);
        keys.filter(|key| key.starts_with("endpoint/")).collect()
    }

    pub async fn say(&mut self, message: &SidecarMessage) -> Result<(), String> {
        let sent = self.send.send_data(encode(message).unwrap()).await;
        sent.map_err(|error| error.to_string())
    }

    pub async fn ack(&mut self, revision: u64) -> Result<(), String> {
        self.say(&SidecarMessage::Ack(Ack {
            revision,
            in_force_unix_ms: 1,
            took_us: 2,
            unsaved: None,
        }))
        .await
    }

    pub async fn nack(&mut self, revision: u64, reason: &str) -> Result<(), String> {
        self.say(&SidecarMessage::Nack(Nack {
            revision,
            running: Some(self.revision),
            key: Some("HTTPRoute/default/invoices".into()),
            reason: reason.into(),
        }))
        .await
    }

    /// Waits for the end of the stream.
    pub async fn ended(&mut self) {
        let end = async { while self.next().await.is_ok() {} };
        timeout(PROMPT, end).await.expect("the stream ends in time");
    }
}
