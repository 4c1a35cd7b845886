//! Clocks that are wrong, and meshes that slept: what ends by the clock, and how it comes back.
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test with real sockets"
)]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use support::apps::HttpApp;
use support::client::get;
use support::faulty::Faulty;
use support::{Mesh, ORDERS_MAY, PATIENCE, Sidecar, eventually, http};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_env::Env;
use weft_proxy::TokenSource;

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
