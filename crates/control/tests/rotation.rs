//! Rotation of leaves and of the issuing CA, with sidecars that do as they are asked.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use support::sidecar::Sidecar;
use support::{Control, PROMPT};
use tokio::time::timeout;
use weft_control::{AdminClient, Phase, Progress, ProgressStream, RotateCa, RotateCerts};

async fn follow(mut stream: ProgressStream) -> Progress {
    timeout(PROMPT, async {
        let mut last = None;
        while let Some(progress) = stream.next().await.unwrap() {
            last = Some(progress);
        }
        last.unwrap()
    })
    .await
    .expect("the rotation ends in time")
}

/// Sidecars that live on their own; all have reported when this returns.
async fn mesh(control: &Control, sidecars: &[(&str, &str)]) -> AdminClient {
    for (service, instance) in sidecars {
        let sidecar = Sidecar::join(control, service, instance).await;
        let (stop, addr) = (control.tasks.token(), control.ready.mesh);
        let life = async move { stop.run_until_cancelled(sidecar.live(addr)).await };
        drop(control.tasks.spawn(life));
    }
    let client = control.client().await;
    timeout(PROMPT, async {
        let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
        loop {
            look.tick().await;
            let known = client.status().await.unwrap().sidecars;
            if known.len() == sidecars.len() && known.iter().all(|s| !s.issuer.is_empty()) {
                return;
            }
        }
    })
    .await
    .expect("all report in time");
    client
}

async fn serials(client: &AdminClient) -> BTreeSet<String> {
    let sidecars = client.status().await.unwrap().sidecars;
    sidecars.into_iter().map(|sidecar| sidecar.serial).collect()
}

#[tokio::test]
async fn all_leaves_or_those_of_one_service_are_rotated() {
    let control = Control::start().await;
    let sidecars = [("invoices", "a1"), ("invoices", "a2"), ("orders", "o1")];
    let client = mesh(&control, &sidecars).await;
    let before = serials(&client).await;

    let all = client.rotate_certs(&RotateCerts::default()).await.unwrap();
    let last = follow(all).await;
    assert_eq!(last.phase, Phase::Done, "{last:?}");
    assert_eq!((last.done, last.total, last.rotated.len()), (3, 3, 3));
    let after = serials(&client).await;
    assert!(before.is_disjoint(&after));

    let one = RotateCerts {
        services: vec!["invoices.default".into()],
        ..RotateCerts::default()
    };
    let last = follow(client.rotate_certs(&one).await.unwrap()).await;
    assert_eq!(last.rotated.len(), 2);
    assert_eq!(serials(&client).await.intersection(&after).count(), 1);
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

#[tokio::test]
async fn the_issuing_ca_is_replaced_under_everyone() {
    let control = Control::start().await;
    let client = mesh(&control, &[("invoices", "a1"), ("orders", "o1")]).await;
    let before = client.ca().await.unwrap();

    let stream = client.rotate_ca(&RotateCa::default()).await.unwrap();
    let last = follow(stream).await;
    assert_eq!(last.phase, Phase::Done, "{last:?}");
    assert_eq!((last.done, last.total), (2, 2));

    let issuer = last.issuer_after.clone().unwrap();
    assert_ne!(last.issuer_before.as_ref(), Some(&issuer));
    let after = client.ca().await.unwrap();
    assert_eq!(after.pin, before.pin);
    let state = |serial: &str| {
        let mut authorities = after.authorities.iter();
        authorities
            .find(|a| a.serial == serial)
            .unwrap()
            .state
            .clone()
    };
    assert_eq!(state(&issuer), "active");
    assert_eq!(state(&last.issuer_before.unwrap()), "removed");
    let status = client.status().await.unwrap();
    assert!(status.sidecars.iter().all(|s| s.issuer == issuer));

    // Whoever joins now gets the new one.
    Sidecar::join(&control, "later", "l1").await;
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

#[tokio::test]
async fn a_rotation_goes_on_when_its_client_leaves_and_names_those_who_are_absent() {
    let control = Control::start().await;
    let client = mesh(&control, &[("invoices", "a1")]).await;
    // Connected, and deaf.
    let deaf = Sidecar::join(&control, "orders", "o1").await;
    let sync = deaf.sync(control.ready.mesh).await.unwrap();

    let request = RotateCerts {
        timeout_ms: Some(20_000),
        ..RotateCerts::default()
    };
    drop(client.rotate_certs(&request).await.unwrap());
    let other = client.rotate_ca(&RotateCa::default()).await;
    let Err(error) = other else {
        panic!("one at a time");
    };
    assert!(error.to_string().contains("under way"), "{error}");

    let mut same = client.rotate_certs(&request).await.unwrap();
    let absent = timeout(PROMPT, async {
        loop {
            let progress = same.next().await.unwrap().unwrap();
            if progress.done == 1 {
                return progress.absent;
            }
        }
    });
    let absent = absent.await.expect("the other one is done in time");
    assert_eq!(absent, ["orders.default/o1"]);
    // It leaves: nobody live is without a new certificate any more.
    drop(sync);
    let last = follow(same).await;
    assert_eq!(last.phase, Phase::Done, "{last:?}");
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}
