//! Clocks that are wrong, and meshes that slept: what ends by the clock, and how it comes back.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::apps::HttpApp;
use support::client::get;
use support::faulty::Faulty;
use support::{ATTEST, Mesh, ORDERS_MAY, PATIENCE, Sidecar, eventually, http};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_env::Env;
use weft_proxy::{Attestor, TokenSource};

const DAY: u64 = 24 * 3600;

#[tokio::test]
async fn a_control_node_that_slept_past_the_end_of_its_issuing_ca_makes_another_one() {
    let machine = Arc::new(Faulty::default());
    let mut mesh = Mesh::start_on(Env::new(machine.clone())).await;
    // Past the end, and before the begin of the one that was made then: the clock was wrong, and is set right.
    for (ahead, signs) in [(32 * DAY, "issuing-2"), (0, "issuing-3")] {
        mesh.stop_control().await;
        machine.ahead.store(ahead, Ordering::SeqCst);
        mesh.restart_control().await;
        let ca = mesh.admin.ca().await.unwrap();
        let active = |role: &str| {
            let mut all = ca.authorities.iter();
            all.find(|a| a.role == role && a.state == "active").unwrap()
        };
        assert_eq!(active("issuing").name, signs);
        assert_eq!(active("root").name, "root-1");
        let joined = mesh.sidecar("orders", &[]).await;
        mesh.settle().await;
        joined.stop().await;
    }
}

#[tokio::test]
async fn a_mesh_that_slept_for_a_week_comes_back_with_tokens_and_with_nothing_less() {
    let machine = Arc::new(Faulty::default());
    let mut mesh = Mesh::start_on(Env::new(machine.clone())).await;
    let app = HttpApp::start("a").await;
    let invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    let orders = mesh.sidecar("orders", &[]).await;
    mesh.push(ORDERS_MAY).await;
    let asleep = [
        ("invoices", invoices.stop().await),
        ("orders", orders.stop().await),
    ];
    mesh.stop_control().await;
    machine.ahead.store(7 * DAY, Ordering::SeqCst);
    mesh.restart_control().await;
    let mut awake = Vec::new();
    for (service, (dir, mut config)) in asleep {
        // It has joined with that one before: the certificate alone lets it in no more.
        let run = weft_proxy::run(&mesh.env, config.clone(), CancellationToken::new());
        let said = timeout(PATIENCE, run).await.unwrap().unwrap_err();
        let said = said.to_string();
        assert!(said.contains("token"), "{said}");
        config.token = TokenSource::Value(mesh.token(service).await);
        awake.push(Sidecar::start(&mesh.env, dir, config).await);
    }
    mesh.settle().await;
    eventually("requests to go as before", || async {
        let reply = get(awake[1].ready.outbound, "invoices", "/").await;
        (reply.status == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_machine_a_year_ahead_refuses_everybody_and_needs_nothing_once_its_clock_is_right() {
    let mesh = Mesh::start().await;
    let app = HttpApp::start("a").await;
    let _invoices = mesh.sidecar("invoices", &[http(app.addr)]).await;
    let machine = Arc::new(Faulty::default());
    let env = Env::new(machine.clone());
    let (dir, config) = mesh.config("orders", &[]).await;
    let orders = Sidecar::start(&env, dir, config).await;
    mesh.push(ORDERS_MAY).await;
    let status = async || get(orders.ready.outbound, "invoices", "/").await.status;
    assert_eq!(status().await, 200);
    machine.ahead.store(365 * DAY, Ordering::SeqCst);
    eventually("its requests to be refused", || async {
        (status().await == 503).then_some(())
    })
    .await;
    machine.ahead.store(0, Ordering::SeqCst);
    eventually("it to be as before", || async {
        (status().await == 200).then_some(())
    })
    .await;
}

/// A cluster, whose tokens are good for ten minutes.
struct Cluster(EcdsaKeyPair);

impl Cluster {
    /// One whose service accounts are let in as services of the same name, by a control node that starts in this folder.
    fn of(mesh: &Path) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let b64 = |bytes| URL_SAFE_NO_PAD.encode::<&[u8]>(bytes);
        let jwk = json!({"kid": "1", "kty": "EC", "crv": "P-256", "x": b64(x), "y": b64(y)});
        let rule = json!({"namespace": "default", "serviceAccount": "*"});
        let cluster = json!({
            "name": "cluster", "jwksFile": "keys.json", "issuer": "i", "audience": "weft",
            "rules": [rule],
        });
        let write = |name: &str, json: Value| std::fs::write(mesh.join(name), json.to_string());
        write("keys.json", json!({"keys": [jwk]})).unwrap();
        write(ATTEST, json!({"k8s": [cluster]})).unwrap();
        Self(key)
    }

    /// What the kubelet does every now and then.
    fn project(&self, env: &Env, service: &str, file: &Path) {
        let now = env.wall().duration_since(std::time::UNIX_EPOCH).unwrap();
        let now = now.as_secs();
        let claims = json!({
            "iss": "i", "aud": "weft", "iat": now, "exp": now + 600,
            "sub": format!("system:serviceaccount:default:{service}"),
            "kubernetes.io": {
                "namespace": "default", "serviceaccount": {"name": service},
                "pod": {"name": service, "uid": "1"},
            },
        });
        let part = |json: Value| URL_SAFE_NO_PAD.encode(json.to_string());
        let signed = format!(
            "{}.{}",
            part(json!({"alg": "ES256", "kid": "1"})),
            part(claims)
        );
        let signature = self.0.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = URL_SAFE_NO_PAD.encode(signature.unwrap().as_ref());
        std::fs::write(file, format!("{signed}.{signature}")).unwrap();
    }
}

#[tokio::test]
async fn a_running_sidecar_whose_certificate_has_ended_joins_again_by_a_proof_of_now() {
    let machine = Arc::new(Faulty::default());
    let mut mesh = Mesh::start_on(Env::new(machine.clone())).await;
    mesh.stop_control().await;
    let cluster = Cluster::of(mesh.dir.path());
    mesh.restart_control().await;
    let app = HttpApp::start("a").await;
    let mut running = Vec::new();
    for (service, apps) in [("invoices", vec![http(app.addr)]), ("orders", vec![])] {
        let (dir, mut config) = mesh.config(service, &apps).await;
        let token = dir.path().join("token");
        cluster.project(&mesh.env, service, &token);
        config.token = TokenSource::None;
        config.attestor = Some(Attestor::K8s { token });
        running.push(Sidecar::start(&mesh.env, dir, config).await);
    }
    mesh.push(ORDERS_MAY).await;
    let status = async || get(running[1].ready.outbound, "invoices", "/").await.status;
    assert_eq!(status().await, 200);
    // The control node is away until every certificate has ended, and with them the tokens that they were given for.
    mesh.stop_control().await;
    machine.ahead.store(7 * DAY, Ordering::SeqCst);
    eventually("nobody to be trusted any more", || async {
        (status().await == 503).then_some(())
    })
    .await;
    mesh.restart_control().await;
    for (sidecar, service) in running.iter().zip(["invoices", "orders"]) {
        let token = sidecar.dir.path().join("token");
        cluster.project(&mesh.env, service, &token);
    }
    eventually("requests to go as before", || async {
        (status().await == 200).then_some(())
    })
    .await;
}
