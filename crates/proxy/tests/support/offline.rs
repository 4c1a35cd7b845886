//! Sidecars that start from what an earlier life saved, while no control node can be reached.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use weft_ca::{Authority, CaConfig, MemoryKeyStore, make_csr};
use weft_certs::{BundleSet, SpiffeId, TrustDomain, X509Svid};
use weft_env::Env;
use weft_proxy::{AppPort, SidecarConfig, TokenSource};

use super::Sidecar;
use super::middlebox::Middlebox;

/// One instance that is to be.
struct Planned {
    service: &'static str,
    apps: Vec<AppPort>,
    mesh: SocketAddr,
    /// Keeps the port from everybody else until the sidecar takes it.
    reserved: (UdpSocket, TcpListener),
    /// Where others are told to reach it.
    reached_at: SocketAddr,
}

/// A mesh without a control node.
pub struct Offline {
    env: Env,
    authority: Authority,
    domain: TrustDomain,
    planned: Vec<Planned>,
    adjust: fn(&mut SidecarConfig),
}

impl Offline {
    pub fn new() -> Self {
        Self::of("weft.local")
    }

    /// The same in another trust domain.
    pub fn of(domain: &str) -> Self {
        let env = Env::system();
        let domain = TrustDomain::parse(domain).unwrap();
        let (config, keys) = (CaConfig::new(domain.clone()), MemoryKeyStore::new());
        let mut rng = env.rng("test");
        let journal = Authority::create(&config, &keys, env.wall(), &mut rng).unwrap();
        let authority = Authority::load(config, journal, &keys).unwrap();
        Self {
            env,
            authority,
            domain,
            planned: Vec::new(),
            adjust: |_| {},
        }
    }

    /// Changes the settings of all instances.
    pub fn with(mut self, adjust: fn(&mut SidecarConfig)) -> Self {
        self.adjust = adjust;
        self
    }

    /// Plans an instance of a service.
    pub fn instance(mut self, service: &'static str, apps: &[AppPort]) -> Self {
        let (mesh, reserved) = free_port();
        self.planned.push(Planned {
            service,
            apps: apps.to_vec(),
            mesh,
            reserved,
            reached_at: mesh,
        });
        self
    }

    /// Puts a box that lets no UDP pass before the instance that was planned last.
    pub async fn behind_a_middlebox(mut self) -> (Self, Middlebox) {
        let planned = self.planned.last_mut().expect("an instance is planned");
        let middlebox = Middlebox::before(planned.mesh).await;
        planned.reached_at = middlebox.addr();
        (self, middlebox)
    }

    /// Starts all instances, in their order, with these resources in force.
    pub async fn start(mut self, yaml: &str) -> Vec<Sidecar> {
        let mut keys = BTreeMap::new();
        for resource in weft_resources::parse_yaml(yaml, "test").unwrap() {
            keys.insert(format!("config/{}", resource.key()), resource.to_json());
        }
        for (n, planned) in self.planned.iter().enumerate() {
            let record = json!({
                "spiffe_id": self.id(planned.service).to_string(),
                "mesh_addr": planned.reached_at,
                "ports": planned.apps.iter()
                    .map(|app| json!({"port": app.port, "protocol": app.protocol}))
                    .collect::<Vec<_>>(),
            });
            keys.insert(format!("endpoint/default/{}/i{n}", planned.service), record);
        }
        let mut started = Vec::new();
        for planned in std::mem::take(&mut self.planned) {
            started.push(self.start_one(planned, &keys).await);
        }
        started
    }

    /// Certificate and key of a service, as a file for somebody who is not weft.
    pub fn credentials(&self, service: &str, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{}-{service}.pem", self.domain));
        std::fs::write(&path, self.svid(service).to_pem().as_bytes()).unwrap();
        path
    }

    /// The roots, as a file.
    pub fn roots(&self, dir: &Path) -> PathBuf {
        let roots = self.authority.bundle().roots;
        let text: String = roots.iter().map(weft_certs::to_pem).collect();
        let path = dir.join("roots.pem");
        std::fs::write(&path, text).unwrap();
        path
    }

    fn svid(&self, service: &str) -> X509Svid {
        let new = make_csr(None).unwrap();
        let id = self.id(service);
        let (now, mut rng) = (self.env.wall(), self.env.rng("test"));
        let issued = self
            .authority
            .issue(&new.csr, &id, None, now, &mut rng)
            .unwrap();
        X509Svid::new(issued.chain, new.key).unwrap()
    }

    fn id(&self, service: &str) -> SpiffeId {
        SpiffeId::for_service(&self.domain, "default", service).unwrap()
    }

    async fn start_one(&self, planned: Planned, keys: &BTreeMap<String, Value>) -> Sidecar {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        self.save(&state, &planned, keys);
        let mut config = SidecarConfig::new(state, self.domain.clone());
        config.control = vec!["127.0.0.1:9".to_owned()];
        config.token = TokenSource::None;
        config.apps = planned.apps;
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        (config.outbound_listen, config.metrics_listen) = (any, any);
        config.mesh_listen = planned.mesh;
        config.tcp_listeners = vec![super::local("invoices:5432"), super::local("nobody:1")];
        config.ready_file = Some(dir.path().join("ready.json"));
        config.drain_deadline = super::PATIENCE;
        (self.adjust)(&mut config);
        drop(planned.reserved);
        Sidecar::start(&self.env, dir, config).await
    }

    fn save(&self, state: &Path, planned: &Planned, keys: &BTreeMap<String, Value>) {
        let svid = self.svid(planned.service);
        let bundles = BundleSet::from(self.authority.bundle());
        let write = |name: &str, text: String| std::fs::write(state.join(name), text).unwrap();
        write("svid.pem", svid.to_pem().to_string());
        write("bundles.json", serde_json::to_string(&bundles).unwrap());
        write(
            "snapshot.json",
            json!({"revision": 3, "keys": keys}).to_string(),
        );
    }
}

/// A port that is free for UDP and TCP, and what keeps it so.
fn free_port() -> (SocketAddr, (UdpSocket, TcpListener)) {
    loop {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let addr = socket.local_addr().unwrap();
        if let Ok(listener) = TcpListener::bind(addr) {
            return (addr, (socket, listener));
        }
    }
}

/// The sample pair: `orders` (no application), then an instance of `invoices` for each set of ports.
pub async fn pair(invoices: &[&[AppPort]], yaml: &str) -> (Sidecar, Vec<Sidecar>) {
    let mesh = invoices
        .iter()
        .fold(Offline::new(), |mesh, apps| mesh.instance("invoices", apps));
    let mut sidecars = mesh.instance("orders", &[]).start(yaml).await;
    let orders = sidecars.pop().expect("orders was planned last");
    (orders, sidecars)
}
