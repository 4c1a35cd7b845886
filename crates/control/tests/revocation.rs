//! Revocation that bites: refused, cut, proved, and dead for good.

#![allow(
    clippy::disallowed_methods,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests; the figures are for whoever runs them with --nocapture"
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use support::sidecar::{Sidecar, join};
use support::{Control, PROMPT};
use tokio::time::timeout;
use weft_control::{AdminClient, ReadmitRequest, RevokeRequest, TokenState};
use weft_transport::{Connection, Target};

const VICTIM: &str = "spiffe://weft.local/ns/default/sa/victim";

fn identity() -> RevokeRequest {
    RevokeRequest {
        spiffe_id: Some(VICTIM.into()),
        ..RevokeRequest::default()
    }
}

/// Sidecars that live on their own and are known to trust, when this returns.
async fn mesh(control: &Control, count: usize) -> (AdminClient, Vec<Arc<Sidecar>>) {
    let mut sidecars = Vec::new();
    for n in 0..count {
        let sidecar = Arc::new(Sidecar::join(control, "peer", &format!("p{n}")).await);
        let (living, addr, stop) = (sidecar.clone(), control.ready.mesh, control.tasks.token());
        let life = async move { stop.run_until_cancelled(living.live(addr)).await };
        drop(control.tasks.spawn(life));
        sidecar.endpoint.serve(Arc::new(support::sidecar::Silent));
        sidecars.push(sidecar);
    }
    let client = control.client().await;
    timeout(PROMPT, async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let known = client.status().await.unwrap().sidecars;
            if known.len() == count && known.iter().all(|s| !s.issuer.is_empty()) {
                return;
            }
        }
    })
    .await
    .expect("all report in time");
    (client, sidecars)
}

/// Live connections from the victim to every peer.
async fn connect(victim: &Sidecar, peers: &[Arc<Sidecar>]) -> Vec<Connection> {
    let peer_id = peers[0].identity.current().svid.id().clone();
    let mut connections = Vec::new();
    for peer in peers {
        let addr = ([127, 0, 0, 1], peer.endpoint.local_addr().port()).into();
        let target = Target::new(addr, peer_id.clone());
        let connection = victim.endpoint.pool().connection(&target).await;
        connections.push(connection.expect("a good identity is let in"));
    }
    connections
}

async fn all_cut(connections: &[Connection]) {
    for connection in connections {
        timeout(PROMPT, connection.retired())
            .await
            .expect("a live connection is cut in time");
    }
}

#[tokio::test]
async fn one_verb_ends_certificates_connections_and_tokens_and_readmission_revives_none() {
    let control = Control::start().await;
    let (client, peers) = mesh(&control, 3).await;
    let victim = Sidecar::join(&control, "victim", "v1").await;
    let unused = control.token("victim", 600).await;
    let mut sync = victim.sync(control.ready.mesh).await.unwrap();
    let connections = connect(&victim, &peers).await;

    let revoked = client.revoke(&identity()).await.unwrap();
    assert_eq!((revoked.serials.len(), revoked.tokens), (1, 1));
    all_cut(&connections).await;
    sync.ended().await;
    let proof = client
        .prove(revoked.edition, revoked.at_unix_ms, PROMPT)
        .await
        .unwrap();
    assert_eq!(proof.receipts.len(), 3, "{proof:?}");
    assert!(proof.receipts.iter().all(|r| r.cut == 1), "{proof:?}");
    assert_eq!(proof.asleep, [VICTIM]);

    // Refused by peers and by the control node, by certificate and by token.
    let peer = &peers[0];
    let peer_id = peer.identity.current().svid.id().clone();
    let addr = ([127, 0, 0, 1], peer.endpoint.local_addr().port()).into();
    let refused = victim.dial_once(&Target::new(addr, peer_id)).await;
    assert_eq!(refused, "revoked");
    let at_control = Target::control(control.ready.mesh, support::sidecar::control_id());
    assert_eq!(victim.dial_once(&at_control).await, "revoked");
    let error = join(&control, control.pin(), &unused).await.unwrap_err();
    assert_eq!(error.code(), "token_revoked");
    assert!(client.create_token(&token()).await.is_err());
    let again = client.revoke(&identity()).await.unwrap_err();
    assert!(again.to_string().contains("already"), "{again}");

    let back = ReadmitRequest {
        spiffe_id: VICTIM.into(),
    };
    let edition = client.readmit(&back).await.unwrap();
    let proof = client.prove(edition, 0, PROMPT).await.unwrap();
    assert!(proof.receipts.len() == 3, "{proof:?}");
    assert_eq!(
        victim.dial_once(&at_control).await,
        "revoked",
        "old material stays dead"
    );
    let error = join(&control, control.pin(), &unused).await.unwrap_err();
    assert_eq!(error.code(), "token_revoked");
    let tokens = client.tokens().await.unwrap();
    assert!(tokens.iter().any(|t| t.state == TokenState::Revoked));
    let anew = Sidecar::join(&control, "victim", "v2").await;
    connect(&anew, &peers).await;
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

fn token() -> weft_control::TokenRequest {
    weft_control::TokenRequest {
        namespace: "default".into(),
        service: "victim".into(),
        ttl_s: 60,
    }
}

#[tokio::test]
async fn a_key_or_a_serial_ends_one_certificate_and_survives_restarts() {
    let control = Control::start().await;
    let (by_key, by_serial, spared) = (
        Sidecar::join(&control, "victim", "v1").await,
        Sidecar::join(&control, "victim", "v2").await,
        Sidecar::join(&control, "victim", "v3").await,
    );
    let client = control.client().await;
    let key = RevokeRequest {
        key: Some(by_key.identity.current().svid.key_pin().to_string()),
        reason: Some("laptop lost".into()),
        ..RevokeRequest::default()
    };
    client.revoke(&key).await.unwrap();
    let serial = RevokeRequest {
        serial: Some(by_serial.identity.current().svid.serial().to_uppercase()),
        ..RevokeRequest::default()
    };
    client.revoke(&serial).await.unwrap();
    let listen = control.ready.mesh.to_string();
    let before = client.revoked().await.unwrap();
    control.tasks.shutdown(Duration::from_millis(1)).await;
    let dir = control.stop().await;

    let control = Control::start_on(dir, &listen, |_| {}).await;
    let client = control.client().await;
    assert_eq!(client.revoked().await.unwrap(), before);
    let target = Target::control(control.ready.mesh, support::sidecar::control_id());
    for (sidecar, verdict) in [
        (by_key, "revoked"),
        (by_serial, "revoked"),
        (spared, "connected"),
    ] {
        let sidecar = sidecar.moved(&control).await;
        assert_eq!(
            sidecar.dial_once(&target).await,
            verdict,
            "{}",
            sidecar.instance
        );
    }
    for (request, expected) in [
        (
            RevokeRequest {
                spiffe_id: Some(support::sidecar::control_id().to_string()),
                ..RevokeRequest::default()
            },
            "control node itself",
        ),
        (
            RevokeRequest {
                key: Some(client.ca().await.unwrap().authorities[1].pin.clone()),
                ..RevokeRequest::default()
            },
            "weft ca revoke issuing-1",
        ),
        (
            RevokeRequest {
                spiffe_id: Some("spiffe://elsewhere/x".into()),
                ..RevokeRequest::default()
            },
            "not in trust domain",
        ),
        (RevokeRequest::default(), "name one thing"),
    ] {
        let error = client.revoke(&request).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

#[tokio::test]
async fn a_stolen_issuing_key_is_worth_nothing_after_its_revocation() {
    let control = Control::start().await;
    let (client, peers) = mesh(&control, 1).await;
    let sleeper = Sidecar::join(&control, "victim", "v1").await;
    let signs = weft_control::SlotRequest {
        slot: "issuing-1".into(),
        ..Default::default()
    };
    let error = client.revoke_ca(&signs).await.unwrap_err();
    assert!(
        error.to_string().contains("weft ca rotate issuing --now"),
        "{error}"
    );
    let mut rotation = client.rotate_ca(&Default::default()).await.unwrap();
    while let Some(progress) = timeout(PROMPT, rotation.next()).await.unwrap().unwrap() {
        assert_ne!(progress.phase, weft_control::Phase::Failed, "{progress:?}");
    }
    let reply = client.revoke_ca(&signs).await.unwrap();
    assert!(reply.left_behind.is_empty());
    // What the old one signed is dead, though its root is as good as ever.
    let target = Target::control(control.ready.mesh, support::sidecar::control_id());
    assert_eq!(sleeper.dial_once(&target).await, "revoked");
    assert_eq!(peers[0].dial_once(&target).await, "connected");
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

/// How long until everyone has cut what they had with a revoked peer. The figure goes to standard output
/// (`--nocapture`); that it is below two seconds is checked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_sidecars_cut_a_revoked_peer_within_two_seconds() {
    const SIDECARS: usize = 100;
    let control = Control::start_with(|config| {
        if let Some(init) = config.init_if_missing.as_mut() {
            init.certificates_per_s = 1000;
        }
    })
    .await;
    let (client, peers) = mesh(&control, SIDECARS).await;
    let victim = Sidecar::join(&control, "victim", "v1").await;
    let connections = connect(&victim, &peers).await;
    let mut times: Vec<Duration> = Vec::new();
    let began = std::time::Instant::now();
    let revoked = client.revoke(&identity()).await.unwrap();
    let mut waits = tokio::task::JoinSet::new();
    for connection in connections {
        waits.spawn(async move {
            connection.retired().await;
            began.elapsed()
        });
    }
    while let Some(took) = timeout(PROMPT, waits.join_next())
        .await
        .expect("cut in time")
    {
        times.push(took.unwrap());
    }
    times.sort();
    let proof = client
        .prove(revoked.edition, revoked.at_unix_ms, PROMPT)
        .await
        .unwrap();
    let proved = began.elapsed();
    assert_eq!(proof.receipts.len(), SIDECARS, "absent: {:?}", proof.absent);
    let (p50, p99) = (times[SIDECARS / 2], times[SIDECARS * 99 / 100 - 1]);
    println!(
        "{SIDECARS} sidecars: connections cut p50 {p50:?}, p99 {p99:?}, last {:?}; all receipts after {proved:?}",
        times[SIDECARS - 1]
    );
    assert!(times[SIDECARS - 1] < Duration::from_secs(2), "{times:?}");
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}
