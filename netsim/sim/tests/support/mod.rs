//! Nodes with identities, for tests of the transport in virtual time.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by several test programs, each of which uses a part"
)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tempfile::TempDir;
use weft_ca::{Authority, CaConfig, MemoryKeyStore, make_csr};
use weft_certs::{BundleSet, IdentitySource, SpiffeId, TrustDomain, X509Svid};
use weft_env::{BoxFuture, Tasks};
use weft_netsim::LinkSpec;
use weft_netsim_sim::{Node, Process, World, run};
use weft_transport::{Endpoint, Handler, ServerRequest, Target, TransportConfig};

pub const MS: Duration = Duration::from_millis(1);

/// Runs a world whose result is what is compared.
pub fn in_world<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
    seed: u64,
    main: impl FnOnce(World) -> F + Send,
) -> T {
    let dir = TempDir::new().unwrap();
    run(seed, dir.path(), main).unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

/// Issues identities.
pub struct Ca {
    authority: Authority,
    domain: TrustDomain,
}

impl Ca {
    pub fn new(world: &World) -> Self {
        let env = world.lab().env();
        let domain = TrustDomain::parse("weft.local").unwrap();
        let (config, keys) = (CaConfig::new(domain.clone()), MemoryKeyStore::new());
        let mut rng = env.rng("ca");
        let journal = Authority::create(&config, &keys, env.wall(), &mut rng).unwrap();
        let authority = Authority::load(config, journal, &keys).unwrap();
        Self { authority, domain }
    }

    pub fn id(&self, service: &str) -> SpiffeId {
        SpiffeId::for_service(&self.domain, "default", service).unwrap()
    }

    pub fn identity(&self, process: &Process, service: &str) -> Arc<IdentitySource> {
        let (env, new) = (process.env(), make_csr(None).unwrap());
        let mut rng = env.rng("issue");
        let issued = self
            .authority
            .issue(&new.csr, &self.id(service), None, env.wall(), &mut rng);
        let svid = X509Svid::new(issued.unwrap().chain, new.key).unwrap();
        IdentitySource::new(svid, BundleSet::from(self.authority.bundle()))
    }
}

/// One end of the mesh on a node of its own.
pub struct Peer {
    pub node: Node,
    pub process: Process,
    pub endpoint: Endpoint,
    /// Owner of its tasks.
    pub tasks: Tasks,
}

pub const PORT: u16 = 15008;

impl Peer {
    pub async fn start(ca: &Ca, node: &Node, service: &str) -> Self {
        Self::start_with(ca, node, service, |_| {}).await
    }

    pub async fn start_with(
        ca: &Ca,
        node: &Node,
        service: &str,
        change: impl FnOnce(&mut TransportConfig),
    ) -> Self {
        let process = node.process("proxy");
        let tasks = Tasks::new(process.env());
        let identity = ca.identity(&process, service);
        let addr = SocketAddr::from(([0, 0, 0, 0], PORT));
        let mut config = TransportConfig::new(addr, identity);
        change(&mut config);
        let endpoint = Endpoint::bind(config, process.env(), &tasks).await.unwrap();
        Self {
            node: node.clone(),
            process,
            endpoint,
            tasks,
        }
    }

    pub fn target(&self, ca: &Ca, service: &str) -> Target {
        let port = self.endpoint.local_addr().port();
        Target::new(SocketAddr::new(self.node.ip(), port), ca.id(service))
    }
}

/// A pair on a link, the second of which answers.
pub async fn pair(world: &World, link: LinkSpec, handler: Arc<dyn Handler>) -> (Ca, Peer, Peer) {
    world.set_default_link(link).unwrap();
    let ca = Ca::new(world);
    let client = Peer::start(&ca, &world.node("client"), "orders").await;
    let server = Peer::start(&ca, &world.node("server"), "invoices").await;
    server.endpoint.serve(handler);
    (ca, client, server)
}

pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://invoices.default:80{path}"))
        .body(())
        .unwrap()
}

/// Answers everything with "ok".
pub struct Ok200;

impl Handler for Ok200 {
    fn handle(&self, mut request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let response = Response::new(());
            let _ = request
                .send
                .send_response_with(&response, Bytes::from_static(b"ok"), true)
                .await;
        })
    }
}
