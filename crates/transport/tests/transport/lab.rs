//! An authority, nodes of it, and a service that answers them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use tokio::sync::Notify;
use tokio::time::timeout;
use weft_certs::{
    BundleSet, CertificateDer, IdentitySource, RootPin, SpiffeId, TrustBundle, TrustDomain,
    X509Svid,
};
use weft_env::{BoxFuture, Env, Tasks};
use weft_transport::{
    Connection, Endpoint, Exchange, Handler, RequestError, ServerRequest, StreamError, Target,
    TransportConfig, TransportError,
};

/// Whatever a test waits for happens within this time, or the test fails.
pub const PROMPT: Duration = Duration::from_secs(20);

/// A root, and what it says.
pub struct Ca {
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Ca {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri("spiffe://weft.local")];
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + Duration::from_secs(86_400)).into();
        let der = params.self_signed(&key).unwrap().into();
        Self { der, key }
    }

    pub fn pin(&self) -> RootPin {
        RootPin::of(&self.der).unwrap()
    }

    /// Trust in these roots.
    pub fn bundles(sequence: u64, roots: &[&Self]) -> BundleSet {
        BundleSet::from(TrustBundle {
            trust_domain: TrustDomain::parse("weft.local").unwrap(),
            sequence,
            roots: roots.iter().map(|ca| ca.der.clone()).collect(),
            jwt_keys: Vec::new(),
        })
    }

    /// A leaf for a service, followed by the root, as a control node sends it.
    pub fn svid(&self, service: &str, life: Duration) -> X509Svid {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![uri(id(service).as_str())];
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        params.not_before = (SystemTime::now() - Duration::from_secs(60)).into();
        params.not_after = (SystemTime::now() + life).into();
        let issuer = Issuer::from_ca_cert_der(&self.der, &self.key).unwrap();
        let leaf = params.signed_by(&key, &issuer).unwrap().into();
        let chain: Vec<CertificateDer<'static>> = vec![leaf, self.der.clone()];
        X509Svid::new(chain, zeroize::Zeroizing::new(key.serialize_der())).unwrap()
    }
}

fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

pub fn id(service: &str) -> SpiffeId {
    let domain = TrustDomain::parse("weft.local").unwrap();
    SpiffeId::for_service(&domain, "default", service).unwrap()
}

/// Who calls and who is called: `orders` and `invoices`.
pub async fn pair(ca: &Ca) -> (Node, Node) {
    (
        Node::new(ca, "orders").await,
        Node::new(ca, "invoices").await,
    )
}

/// An hour.
pub const LONG: Duration = Duration::from_secs(3600);

/// One endpoint and its identity.
pub struct Node {
    pub env: Env,
    pub tasks: Tasks,
    pub identity: Arc<IdentitySource>,
    pub endpoint: Endpoint,
    pub service: Arc<Service>,
}

impl Node {
    pub async fn new(ca: &Ca, service: &str) -> Self {
        Self::with(ca, service, LONG, |_| {}).await
    }

    pub async fn with(
        ca: &Ca,
        service: &str,
        life: Duration,
        change: impl FnOnce(&mut TransportConfig),
    ) -> Self {
        Self::bind(ca, service, life, change).await.unwrap()
    }

    /// One at this address, if it is free.
    pub async fn try_at(ca: &Ca, service: &str, addr: SocketAddr) -> Option<Self> {
        let bound = Self::bind(ca, service, LONG, |config| config.addr = addr).await;
        bound.ok()
    }

    async fn bind(
        ca: &Ca,
        service: &str,
        life: Duration,
        change: impl FnOnce(&mut TransportConfig),
    ) -> Result<Self, TransportError> {
        let env = Env::system();
        let tasks = Tasks::new(&env);
        let identity = IdentitySource::new(ca.svid(service, life), Ca::bundles(1, &[ca]));
        let mut config = TransportConfig::new("127.0.0.1:0".parse().unwrap(), identity.clone());
        change(&mut config);
        let endpoint = Endpoint::bind(config, &env, &tasks.child()).await?;
        let service = Arc::new(Service::default());
        endpoint.serve(service.clone());
        Ok(Self {
            env,
            tasks,
            identity,
            endpoint,
            service,
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.endpoint.local_addr()
    }

    /// How to reach it, as this service.
    pub fn target(&self, service: &str) -> Target {
        Target::new(self.addr(), id(service))
    }

    pub async fn get(&self, target: &Target, path: &str) -> Result<String, RequestError> {
        let (pool, head) = (self.endpoint.pool(), head(path));
        let exchange = pool.request_with(target, &head, Bytes::new(), true);
        let exchange = timeout(PROMPT, exchange).await.expect("an answer in time");
        body(exchange?).await.map_err(RequestError::Stream)
    }

    /// The pool's connection to that node.
    pub async fn connect(&self, target: &Target) -> Connection {
        self.endpoint.pool().connection(target).await.unwrap()
    }

    /// A request on this connection, which has reached this node and waits there for `service.go`.
    pub async fn hold(&self, connection: &Connection) -> Exchange {
        let held = connection.request(&head("/wait")).await.unwrap();
        self.service.waiting.notified().await;
        held
    }

    /// Renews the own SVID.
    pub fn renew(&self, ca: &Ca, service: &str) {
        let svid = ca.svid(service, LONG);
        self.identity.replace_svid(svid, SystemTime::now()).unwrap();
    }

    /// Waits until the endpoint counts this refusal.
    pub async fn refusal(&self, reason: &str) -> u64 {
        eventually(&format!("a refusal for {reason}"), || {
            self.endpoint.refusals().get(reason).copied()
        })
        .await
    }
}

pub fn head(path: &str) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::builder()
        .scheme("https")
        .authority("invoices.default:80")
        .path_and_query(path)
        .build()
        .unwrap();
    request
}

/// The response's body as text.
pub async fn body(mut exchange: Exchange) -> Result<String, StreamError> {
    let read = async {
        exchange.recv.response().await?;
        let mut all = Vec::new();
        while let Some(piece) = exchange.recv.data().await? {
            all.extend_from_slice(&piece);
        }
        Ok(String::from_utf8(all).unwrap())
    };
    timeout(PROMPT, read).await.expect("a response in time")
}

pub async fn request_on(connection: &Connection, path: &str) -> Result<String, RequestError> {
    let exchange = connection
        .request_with(&head(path), Bytes::new(), true)
        .await?;
    body(exchange).await.map_err(RequestError::Stream)
}

/// Answers: who called, as the path asks for it.
#[derive(Default)]
pub struct Service {
    /// Lets one request to `/wait` end.
    pub go: Notify,
    /// Told of each request that waits.
    pub waiting: Notify,
}

impl Handler for Service {
    fn handle(&self, request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let ServerRequest {
                peer,
                request,
                mut send,
                // Held, and not read, until there is an answer.
                mut recv,
                ..
            } = request;
            if request.method() == Method::CONNECT {
                // An echo.
                send.send_response(&Response::new(())).await.unwrap();
                while let Some(piece) = recv.data().await.unwrap() {
                    send.send_data(piece).await.unwrap();
                }
                return send.finish().await.unwrap();
            }
            match request.uri().path() {
                "/wait" => {
                    self.waiting.notify_one();
                    self.go.notified().await;
                }
                "/panic" => panic!("a handler that fails must fail alone"),
                _ => {}
            }
            let caller = peer.map_or_else(|| "nobody".to_owned(), |peer| peer.id.to_string());
            let answer = Response::new(());
            // The caller may be gone.
            let _ = send
                .send_response_with(&answer, Bytes::from(caller), true)
                .await;
        })
    }
}

/// Looks again and again until there is something to see.
pub async fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let seen = async {
        let mut tick = tokio::time::interval(Duration::from_millis(2));
        loop {
            tick.tick().await;
            if let Some(seen) = look() {
                return seen;
            }
        }
    };
    timeout(PROMPT, seen)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}
