//! Rotation of leaves and of the issuing CA, with sidecars that do as they are asked.

#![allow(clippy::disallowed_methods, clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;

use support::sidecar::{Sidecar, join};
use support::{Control, PROMPT};
use tokio::time::timeout;
use weft_ca::audit;
use weft_certs::RootPin;
use weft_control::{
    AdminClient, Anchor, Phase, Progress, ProgressStream, RotateCa, RotateCerts, Seen, SlotRequest,
    verify_evidence,
};

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

#[tokio::test]
async fn a_root_is_replaced_under_everyone_and_the_proof_holds_elsewhere() {
    let control = Control::start().await;
    let client = mesh(&control, &[("invoices", "a1"), ("orders", "o1")]).await;
    let before = client.ca().await.unwrap();

    let request = RotateCa {
        root: true,
        now: true,
        ..RotateCa::default()
    };
    let plan = client.plan_ca(&request).await.unwrap();
    assert_eq!(plan.sidecars.len(), 2);
    assert!(
        plan.steps.iter().any(|step| step.contains("acknowledge")),
        "{plan:?}"
    );
    assert_eq!(client.ca().await.unwrap(), before, "a dry run does nothing");

    let last = follow(client.rotate_ca(&request).await.unwrap()).await;
    assert_eq!(last.phase, Phase::Done, "{last:?}");
    assert_eq!((last.done, last.total), (2, 2));
    let after = client.ca().await.unwrap();
    assert_ne!(after.pin, before.pin);
    let state = |name: &str| {
        let found = after.authorities.iter().find(|a| a.name == name);
        found
            .map(|a| a.state.as_str())
            .unwrap_or("unknown")
            .to_owned()
    };
    assert_eq!(
        ["root-1", "root-2", "issuing-1", "issuing-2"].map(state),
        ["removed", "active", "removed", "active"]
    );

    let evidence = client.evidence().await.unwrap();
    assert_eq!(last.evidence, Some(1));
    let text = serde_json::to_vec(&evidence[0].document).unwrap();
    let pin = RootPin::parse(&after.pin).unwrap();
    let proof = verify_evidence(&text, &Anchor::Pin(pin)).unwrap();
    assert_eq!(proof, evidence[0].evidence);
    let named = |seen: &[Seen]| seen.iter().map(|s| s.sidecar.clone()).collect::<Vec<_>>();
    let both = ["invoices.default/a1", "orders.default/o1"];
    assert_eq!(named(&proof.acknowledged), both);
    assert_eq!(named(&proof.renewed), both);
    assert!(proof.missing.is_empty() && proof.dropped_unix_ms.is_some());
    let last_old = proof.last_chain_to_old.unwrap();
    assert!(last_old.at_unix_ms <= proof.dropped_unix_ms.unwrap());
    let other = RootPin::parse(&before.pin).unwrap();
    assert!(verify_evidence(&text, &Anchor::Pin(other)).is_err());
    let mut forged = String::from_utf8(text).unwrap();
    let at = forged.find("\"payload\":\"").unwrap() + 60;
    let flipped = if &forged[at..=at] == "A" { "B" } else { "A" };
    forged.replace_range(at..=at, flipped);
    assert!(verify_evidence(forged.as_bytes(), &Anchor::Pin(pin)).is_err());

    // The audit log has all of it, and is whole.
    let page = client.audit(0).await.unwrap();
    let end = audit::check(&audit::Head::default(), &page.records).unwrap();
    audit::check_end(&end, &page.head).unwrap();
    let has = |event: &str| {
        page.records
            .iter()
            .filter(|r| r.event.event == event)
            .count()
    };
    assert_eq!(has("rotation.started"), 1);
    assert_eq!(has("rotation.finished"), 1);
    assert_eq!(has("authority.removed"), 2);
    assert!(
        has("certificate.issued") >= 6,
        "two joined, two renewed, two of its own"
    );
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

#[tokio::test]
async fn who_cuts_a_waiting_rotation_short_is_told_that_nothing_new_was_begun() {
    let control = Control::start().await;
    let client = mesh(&control, &[("invoices", "a1")]).await;
    // One that has a certificate and sleeps: for it the old root has to stay.
    drop(Sidecar::join(&control, "orders", "o1").await);
    let mut request = RotateCa {
        root: true,
        ..RotateCa::default()
    };
    let last = follow(client.rotate_ca(&request).await.unwrap()).await;
    assert_eq!(last.phase, Phase::Waiting, "{last:?}");
    for refused in [
        client.plan_ca(&request).await.unwrap_err(),
        client.rotate_ca(&request).await.map(drop).unwrap_err(),
    ] {
        assert!(refused.to_string().contains("waits"), "{refused}");
    }
    request.now = true;
    let plan = client.plan_ca(&request).await.unwrap();
    assert!(plan.steps[0].contains("end rotation 1"), "{plan:?}");
    assert_eq!(plan.steps.len(), 1);
    // The first ends the one that waits, and says so; the second replaces.
    for (ended, evidence) in [(Some(1), 1), (None, 2)] {
        let last = follow(client.rotate_ca(&request).await.unwrap()).await;
        assert_eq!(last.phase, Phase::Done, "{last:?}");
        assert_eq!((last.ended, last.evidence), (ended, Some(evidence)));
    }
    let authorities = client.ca().await.unwrap().authorities;
    let state = |name: &str| {
        let found = authorities.iter().find(|a| a.name == name);
        found.map(|a| a.state.clone()).unwrap_or_default()
    };
    assert_eq!(
        ["root-1", "root-2", "root-3"].map(state),
        ["removed", "removed", "active"]
    );
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

#[tokio::test]
async fn a_root_signs_nothing_before_every_sidecar_trusts_it_unless_told() {
    let control = Control::start().await;
    let client = mesh(&control, &[("invoices", "a1")]).await;
    // Connected, and deaf: it neither trusts nor renews.
    let deaf = Sidecar::join(&control, "orders", "o1").await;
    let sync = deaf.sync(control.ready.mesh).await.unwrap();

    let mut request = RotateCa {
        root: true,
        now: true,
        timeout_ms: Some(300),
        ..RotateCa::default()
    };
    let last = follow(client.rotate_ca(&request).await.unwrap()).await;
    assert_eq!(last.phase, Phase::Failed);
    let message = last.message.unwrap();
    assert!(
        message.contains("orders.default/o1") && message.contains("--allow-missing"),
        "{message}"
    );
    let states = |info: &weft_control::CaInfo| {
        let states = info
            .authorities
            .iter()
            .map(|a| (a.name.clone(), a.state.clone()));
        states.collect::<std::collections::BTreeMap<_, _>>()
    };
    let now = states(&client.ca().await.unwrap());
    assert_eq!(
        (now["root-1"].as_str(), now["root-2"].as_str()),
        ("active", "prepared")
    );
    assert!(
        client.evidence().await.unwrap().is_empty(),
        "not rotated, not shown as rotated"
    );
    let by_hand = SlotRequest {
        slot: "root-2".into(),
        ..SlotRequest::default()
    };
    let error = client.activate_ca(&by_hand).await.unwrap_err();
    assert!(error.to_string().contains("weft ca rotate root"), "{error}");

    request.allow_missing = true;
    let last = follow(client.rotate_ca(&request).await.unwrap()).await;
    assert_eq!(last.phase, Phase::Done, "{last:?}");
    assert!(
        last.missing.contains(&"orders.default/o1".to_owned()),
        "{last:?}"
    );
    let evidence = client.evidence().await.unwrap().remove(0).evidence;
    assert!(evidence.missing.contains(&"orders.default/o1".to_owned()));
    drop(sync);
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}

#[tokio::test]
async fn who_slept_through_a_root_rotation_gets_in_and_the_old_root_waits_for_it() {
    let control = Control::start().await;
    let client = mesh(&control, &[("invoices", "a1")]).await;
    let sleeper = Sidecar::join(&control, "orders", "o1").await;
    let old_pin = control.pin();

    let request = RotateCa {
        root: true,
        ..RotateCa::default()
    };
    let last = follow(client.rotate_ca(&request).await.unwrap()).await;
    assert_eq!(last.phase, Phase::Waiting, "{last:?}");
    assert!(last.until_unix.is_some());
    assert_eq!(last.asleep, ["spiffe://weft.local/ns/default/sa/orders"]);
    let other = client.rotate_ca(&RotateCa::default()).await;
    let Err(error) = other else {
        panic!("two slots, both taken")
    };
    assert!(error.to_string().contains("--now"), "{error}");

    // It knows the first root only, and its certificate is under it.
    let mut sync = sleeper.sync(control.ready.mesh).await.unwrap();
    sync.update().await;
    sleeper.take_trust(&sync.known).await;
    sleeper.renew(&sync.connection).await.unwrap();
    // So does a joiner with the pin of before.
    let token = control.token("later", 600).await;
    join(&control, old_pin, &token).await.unwrap();

    let hurry = RotateCa {
        now: true,
        ..request
    };
    let last = follow(client.rotate_ca(&hurry).await.unwrap()).await;
    assert_eq!(last.phase, Phase::Done, "{last:?}");
    let evidence = client.evidence().await.unwrap().remove(0).evidence;
    assert!(!evidence.waited_for_sleepers);
    control.tasks.shutdown(PROMPT).await;
    control.stop().await;
}
