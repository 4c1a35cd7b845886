//! Envoy's QUIC and HTTP/3 as a server, called by weft's transport as sidecars call each other.
//!
//! Not the other way round: Envoy's QUIC client demands a DNS name in the server's certificate, which an SVID has not.

use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use http::{Method, Request, Uri};
use weft_env::{Env, Tasks};
use weft_transport::{Endpoint, Target, TransportConfig};

use super::{ORDERS, id, node, start};
use crate::interop::envoy::program;
use crate::lab::*;

/// What Envoy answers, and whom it says that it saw.
async fn call(endpoint: &Endpoint, port: u16) -> Result<(Bytes, String), String> {
    let words = |error: &dyn std::fmt::Display| error.to_string();
    let mut request = Request::new(());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = Uri::from_static("https://invoices.default/");
    let target = Target::new(([127, 0, 0, 1], port).into(), id(INVOICES));
    let pool = endpoint.pool();
    let called = within(pool.request_with(&target, &request, Bytes::new(), true)).await;
    let mut exchange = called.map_err(|error| words(&error))?;
    let response = within(exchange.recv.response()).await;
    let response = response.map_err(|error| words(&error))?;
    assert_eq!(response.status(), 200);
    let peer = response.headers()["x-peer"].to_str().unwrap().to_owned();
    let body = within(exchange.recv.data()).await;
    Ok((
        body.map_err(|error| words(&error))?.unwrap_or_default(),
        peer,
    ))
}

async fn endpoint(ca: &Ca, name: &str, lab: &Lab, env: &Env, tasks: &Tasks) -> (Endpoint, Serial) {
    let identity = node(ca, name, &[&lab.root]);
    let local = "127.0.0.1:0".parse().unwrap();
    let config = TransportConfig::new(local, Arc::clone(&identity));
    let endpoint = Endpoint::bind(config, env, &tasks.child()).await.unwrap();
    (endpoint, identity)
}

type Serial = Arc<weft_certs::IdentitySource>;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weft_calls_envoy_over_http3_through_rotations_of_both() {
    let Some(program) = program() else { return };
    let lab = Lab::new().await;
    let envoy = start(program, &lab, 9, ("default", "ALL")).await;
    let env = Env::system();
    let tasks = Tasks::new(&env);
    let (orders, identity) = endpoint(&lab.issuing, ORDERS, &lab, &env, &tasks).await;
    for _ in 0..3 {
        let serial = identity.current().svid.serial().to_owned();
        let expected = format!("{ORDERS} {serial}");
        within(async {
            loop {
                let called = call(&orders, envoy.mesh).await;
                let (body, peer) =
                    called.unwrap_or_else(|e| panic!("a call failed: {e}; {}", envoy.log()));
                assert_eq!(body, "from envoy");
                // Calls on the connection of before the rotation are good too.
                if peer == expected {
                    return;
                }
            }
        })
        .await;
        lab.rotate();
        let next = lab.issuing.svid(ORDERS, in_an_hour());
        identity.replace_svid(next, SystemTime::now()).unwrap();
    }
    let payments = "spiffe://weft.local/ns/default/sa/payments";
    let (other, _) = endpoint(&lab.issuing, payments, &lab, &env, &tasks).await;
    assert!(call(&other, envoy.mesh).await.is_err(), "who is not orders");
}
