//! The control node end to end in one process: real QUIC on loopback, a real store, a real admin socket.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests")]

mod support;

use std::time::Duration;

use support::sidecar::{Failed, Sidecar, call, control_id, join};
use support::{Control, PROMPT, route};
use tokio::time::timeout;
use weft_certs::RootPin;
use weft_control::{SidecarState, TokenState};
use weft_transport::{JoinConfig, KeyExchange, join_connection};
use weft_wire::{PATH_RENEW, RenewRequest, SidecarMessage};

const KEY: &str = "config/HTTPRoute/default/invoices";

#[tokio::test]
async fn a_token_makes_an_svid_once_and_the_pin_guards_it() {
    let control = Control::start().await;
    let token = control.token("invoices", 600).await;

    let wrong_pin = RootPin::parse(&format!("sha256:{}", "00".repeat(32))).unwrap();
    let refused = join(&control, wrong_pin, &token).await.unwrap_err();
    assert!(matches!(refused, Failed::Dial(_)), "{refused:?}");

    let (svid, bundles) = join(&control, control.pin(), &token).await.unwrap();
    assert_eq!(
        svid.id().as_str(),
        "spiffe://weft.local/ns/default/sa/invoices"
    );
    svid.validate(&bundles, control.env.wall()).unwrap();

    let again = join(&control, control.pin(), &token).await.unwrap_err();
    assert!(matches!(again, Failed::Refused(409, _)), "{again:?}");
    assert_eq!(again.code(), "token_used");
    let unknown = format!("weft-join-{}", "0".repeat(32));
    let unknown = join(&control, control.pin(), &unknown).await.unwrap_err();
    assert!(matches!(unknown, Failed::Refused(401, _)), "{unknown:?}");
    assert_eq!(unknown.code(), "token_unknown");

    let tokens = control.client().await.tokens().await.unwrap();
    assert_eq!(tokens[0].state, TokenState::Used);
    assert!(
        tokens[0]
            .used_by
            .as_deref()
            .unwrap()
            .starts_with("127.0.0.1")
    );
    control.stop().await;
}

#[tokio::test]
async fn of_two_joins_with_one_token_one_wins() {
    let control = Control::start().await;
    let token = control.token("invoices", 600).await;
    let (one, two) = tokio::join!(
        join(&control, control.pin(), &token),
        join(&control, control.pin(), &token)
    );
    assert!(one.is_ok() != two.is_ok());
    assert_eq!(one.and(two).unwrap_err().code(), "token_used");
    control.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let control = Control::start().await;
    let token = control.token("invoices", 1).await;
    let expired = timeout(PROMPT, async {
        // The token's own clock has to reach its end.
        let client = control.client().await;
        let mut look = tokio::time::interval(Duration::from_millis(20));
        while client.tokens().await.unwrap()[0].state != TokenState::Expired {
            look.tick().await;
        }
    });
    expired.await.expect("it expires in time");
    let refused = join(&control, control.pin(), &token).await.unwrap_err();
    assert_eq!(refused.code(), "token_expired");
    control.stop().await;
}

#[tokio::test]
async fn without_a_certificate_only_joining_is_open() {
    let control = Control::start().await;
    let config = JoinConfig {
        pin: control.pin(),
        expected: control_id(),
        key_exchange: KeyExchange::Preferred,
        fallback: true,
    };
    let connection = join_connection(&control.env, &control.tasks, control.ready.mesh, &config)
        .await
        .unwrap();
    let request = RenewRequest { csr: String::new() };
    let refused = call(&connection, PATH_RENEW, &request).await.unwrap_err();
    assert!(matches!(refused, Failed::Refused(401, _)), "{refused:?}");
    let other = call(&connection, "/v1/other", &request).await.unwrap_err();
    assert!(matches!(other, Failed::Refused(404, _)), "{other:?}");
    control.stop().await;
}

#[tokio::test]
async fn a_sidecar_gets_everything_then_changes_and_its_receipt_ends_the_wait() {
    let control = Control::start().await;
    let client = control.client().await;
    let sidecar = Sidecar::join(&control, "invoices", "a1").await;
    let mut sync = sidecar.sync(control.ready.mesh).await.unwrap();
    let first = sync.update().await;
    assert!(first.whole);
    assert!(sync.known.contains_key("trust/weft.local"));
    sync.until(|known| known.contains_key("endpoint/default/invoices/a1"))
        .await;
    let endpoint = &sync.known["endpoint/default/invoices/a1"];
    let seen = endpoint["mesh_addr"].as_str().unwrap();
    assert!(
        seen.starts_with("127.0.0.1"),
        "observed, not 0.0.0.0: {seen}"
    );

    let applied = client.apply(&[route("10s")]).await.unwrap();
    let update = sync.update().await;
    assert!(!update.whole);
    assert_eq!(update.revision, applied.revision);
    assert_eq!(update.set.keys().collect::<Vec<_>>(), [KEY]);

    let late = client
        .wait(applied.revision, Duration::from_millis(50))
        .await
        .unwrap();
    assert_eq!(late.stragglers[0].instance, "a1");
    let (reply, said) = tokio::join!(
        client.wait(applied.revision, PROMPT),
        sync.ack(applied.revision)
    );
    said.unwrap();
    let reply = reply.unwrap();
    assert!(reply.is_complete(), "{reply:?}");
    assert_eq!(reply.receipts[0].service, "invoices.default");
    assert_eq!(
        (
            reply.receipts[0].took_us,
            reply.receipts[0].in_force_unix_ms
        ),
        (2, 1)
    );
    assert!(reply.receipts[0].after_ms.unwrap() > 0.0);

    let bad = client.apply(&[route("5s")]).await.unwrap();
    let update = sync.update().await;
    let (reply, said) = tokio::join!(
        client.wait(bad.revision, PROMPT),
        sync.nack(update.revision, "port 5432 is in use")
    );
    said.unwrap();
    let reply = reply.unwrap();
    assert_eq!(reply.nacks[0].reason, "port 5432 is in use");
    assert_eq!(
        reply.nacks[0].key.as_deref(),
        Some("HTTPRoute/default/invoices")
    );

    let status = client.status().await.unwrap();
    assert_eq!(status.control.revision, bad.revision);
    assert_eq!(status.sidecars[0].state, SidecarState::Live);
    assert_eq!(status.sidecars[0].acked_revision, Some(applied.revision));
    assert_eq!(
        status.sidecars[0].nack.as_ref().unwrap().revision,
        bad.revision
    );

    sync.say(&SidecarMessage::Goodbye).await.unwrap();
    sync.ended().await;
    assert!(client.status().await.unwrap().sidecars.is_empty());
    control.stop().await;
}

#[tokio::test]
async fn an_instance_of_another_service_is_refused() {
    let control = Control::start().await;
    let owner = Sidecar::join(&control, "invoices", "a1").await;
    let _sync = owner.sync(control.ready.mesh).await.unwrap();
    let thief = Sidecar::join(&control, "orders", "a1").await;
    let Err(refused) = thief.sync(control.ready.mesh).await else {
        panic!("the instance id is taken");
    };
    assert!(matches!(refused, Failed::Refused(409, _)), "{refused:?}");
    assert_eq!(refused.code(), "instance_taken");
    control.stop().await;
}

#[tokio::test]
async fn a_renewal_is_for_the_identity_of_the_connection() {
    let control = Control::start().await;
    let sidecar = Sidecar::join(&control, "invoices", "a1").await;
    let connection = sidecar.dial(control.ready.mesh).await.unwrap();
    let before = sidecar.identity.current().svid.clone();
    sidecar.renew(&connection).await.unwrap();
    let after = sidecar.identity.current().svid.clone();
    assert_eq!(after.id(), before.id());
    assert_ne!(after.serial(), before.serial());
    control.stop().await;
}

#[tokio::test]
async fn a_restart_keeps_revision_config_and_endpoints() {
    let control = Control::start().await;
    let client = control.client().await;
    let sidecar = Sidecar::join(&control, "invoices", "a1").await;
    let mut sync = sidecar.sync(control.ready.mesh).await.unwrap();
    let applied = client.apply(&[route("10s")]).await.unwrap();
    let endpoint = "endpoint/default/invoices/a1";
    sync.until(|known| known.contains_key(KEY) && known.contains_key(endpoint))
        .await;
    let (known, revision) = (sync.known.clone(), sync.revision);
    let (mesh, pin) = (control.ready.mesh, control.ready.pin.clone());
    drop(client);

    let dir = control.crash().await;
    let control = Control::start_on(dir, &mesh.to_string(), |_| {}).await;
    assert_eq!(control.ready.pin, pin);
    let observer = Sidecar::join(&control, "orders", "o1").await;
    let mut watching = observer.sync(mesh).await.unwrap();
    watching.update().await;
    assert!(watching.endpoints().contains(&endpoint), "never emptied");

    let mut sync = sidecar.sync(mesh).await.unwrap();
    let first = sync.update().await;
    assert!(first.whole && first.revision >= revision);
    for (key, value) in &known {
        assert_eq!(sync.known.get(key), Some(value), "{key}");
    }
    let client = control.client().await;
    let again = client.apply(&[route("5s")]).await.unwrap();
    assert!(again.revision > applied.revision);
    sync.until(|known| known[KEY]["spec"]["rules"][0]["timeouts"]["request"] == "5s")
        .await;
    control.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_vanishes_is_removed_after_the_grace_only() {
    let control = Control::start_with(|config| config.grace = Duration::from_millis(300)).await;
    let observer = Sidecar::join(&control, "orders", "o1").await;
    let mut watching = observer.sync(control.ready.mesh).await.unwrap();
    let sidecar = Sidecar::join(&control, "invoices", "a1").await;
    let sync = sidecar.sync(control.ready.mesh).await.unwrap();
    let endpoint = "endpoint/default/invoices/a1";
    watching.until(|known| known.contains_key(endpoint)).await;
    drop(sync);
    let client = control.client().await;
    timeout(PROMPT, async {
        let mut look = tokio::time::interval(Duration::from_millis(5));
        loop {
            look.tick().await;
            let sidecars = client.status().await.unwrap().sidecars;
            let gone = sidecars.iter().find(|s| s.instance == "a1");
            if gone.is_none_or(|s| s.state != SidecarState::Live) {
                break;
            }
        }
    })
    .await
    .expect("it is seen to be gone in time");
    watching.until(|known| !known.contains_key(endpoint)).await;
    control.stop().await;
}
