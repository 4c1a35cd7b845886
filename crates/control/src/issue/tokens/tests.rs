#![allow(clippy::disallowed_methods)]

use std::sync::Arc;

use super::*;

struct Bench {
    _dir: tempfile::TempDir,
    env: Env,
    store: Arc<dyn Store>,
    ca: CaService,
    remote: SocketAddr,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::system();
        let (store, ca) = crate::testing::authority(&env, dir.path()).await;
        Self {
            _dir: dir,
            env,
            store,
            ca,
            remote: "10.0.0.1:5".parse().unwrap(),
        }
    }

    async fn create(&self, namespace: &str, service: &str, ttl_s: u64) -> Result<String, Reject> {
        let request = TokenRequest {
            namespace: namespace.into(),
            service: service.into(),
            ttl_s,
        };
        create(&self.env, &self.ca, &request, "uid 0")
            .await
            .map(|(token, _, _)| token.reveal().to_owned())
    }

    async fn check(&self, token: &str, now: SystemTime) -> Result<Redeemable, Reject> {
        check(&*self.store, token, self.remote, now).await
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, Reject>) -> String {
    result.unwrap_err().problem.code
}

#[tokio::test]
async fn a_token_is_good_once_and_its_record_says_who_used_it() {
    let bench = Bench::new().await;
    let now = bench.env.wall();
    let token = bench.create("default", "invoices", 600).await.unwrap();
    let good = bench.check(&token, now).await.unwrap();
    assert_eq!(
        good.identity().as_str(),
        "spiffe://weft.local/ns/default/sa/invoices"
    );
    let (txn, _) = redeem(good);
    bench.store.commit(txn).await.unwrap();
    assert_eq!(code(bench.check(&token, now).await), "token_used");

    let listed = list(&*bench.store, now).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, TokenState::Used);
    assert_eq!(listed[0].used_by.as_deref(), Some("10.0.0.1"));
    let all = bench.store.range("").await.unwrap();
    assert!(
        all.entries
            .iter()
            .all(|entry| !String::from_utf8_lossy(&entry.value).contains(&token)),
        "the token itself is never stored"
    );
}

#[tokio::test]
async fn of_two_uses_at_the_same_time_one_wins() {
    let bench = Bench::new().await;
    let now = bench.env.wall();
    let token = bench.create("default", "invoices", 600).await.unwrap();
    let (one, two) = (
        bench.check(&token, now).await.unwrap(),
        bench.check(&token, now).await.unwrap(),
    );
    let ((one, at), (two, _)) = (redeem(one), redeem(two));
    let (one, two) = tokio::join!(bench.store.commit(one), bench.store.commit(two));
    assert!(one.is_ok() != two.is_ok());
    let error = one.and(two).unwrap_err();
    let Lost::Race(lost) = lost_race(error.into(), at) else {
        panic!("somebody else was faster");
    };
    assert_eq!(lost.problem.code, "token_used");
}

#[tokio::test]
async fn wrong_and_expired_tokens_are_refused_each_with_its_reason() {
    let bench = Bench::new().await;
    let now = bench.env.wall();
    let token = bench.create("default", "invoices", 600).await.unwrap();
    let late = now + Duration::from_secs(601);
    assert_eq!(code(bench.check(&token, late).await), "token_expired");
    let other = format!("weft-join-{}", "0".repeat(32));
    for wrong in ["", "x", other.as_str()] {
        assert_eq!(
            code(bench.check(wrong, now).await),
            "token_unknown",
            "{wrong}"
        );
    }
}

#[tokio::test]
async fn reserved_names_and_absurd_lives_are_refused() {
    let bench = Bench::new().await;
    for (namespace, service, ttl, expected) in [
        ("weft-system", "control", 600, "reserved_namespace"),
        ("default", "In Voices", 600, "bad_name"),
        ("a/b", "invoices", 600, "bad_name"),
        ("default", "invoices", 0, "token_ttl"),
        ("default", "invoices", 8 * 86_400, "token_ttl"),
    ] {
        assert_eq!(
            code(bench.create(namespace, service, ttl).await),
            expected,
            "{namespace}/{service} {ttl}"
        );
    }
    assert!(bench.store.range(PREFIX).await.unwrap().entries.is_empty());
}

#[tokio::test]
async fn a_token_that_was_taken_back_lets_nobody_in() {
    let bench = Bench::new().await;
    let now = bench.env.wall();
    let token = bench.create("default", "invoices", 600).await.unwrap();
    let other = bench.create("default", "orders", 600).await.unwrap();
    let listed = list(&*bench.store, now).await.unwrap();
    let mine = listed.iter().find(|t| t.spiffe_id.ends_with("invoices"));
    let (txn, id) = revoke(&*bench.store, &mine.unwrap().id).await.unwrap();
    bench.store.commit(txn).await.unwrap();
    assert!(id.as_str().ends_with("invoices"));
    assert_eq!(code(bench.check(&token, now).await), "token_revoked");
    bench.check(&other, now).await.unwrap();
    assert_eq!(
        code(revoke(&*bench.store, "nothing").await),
        "no_such_token"
    );

    let (txn, count) = revoke_all(&*bench.store, &crate::testing::id("orders"), Txn::new())
        .await
        .unwrap();
    bench.store.commit(txn).await.unwrap();
    assert_eq!(count.len(), 1);
    assert_eq!(code(bench.check(&other, now).await), "token_revoked");
}

/// Event and token of each record, in their order.
async fn recorded(bench: &Bench) -> Vec<(String, String)> {
    let page = bench.ca.audit().page(0).await.unwrap();
    let acts = page.records.into_iter().map(|record| record.event);
    acts.filter(|event| event.event.starts_with("token."))
        .map(|event| {
            let token = event.detail.get("token").map(ToString::to_string);
            (event.event, token.unwrap_or(event.subject))
        })
        .collect()
}

#[tokio::test]
async fn every_act_on_a_token_is_in_the_audit_log_and_never_the_token_itself() {
    let bench = Bench::new().await;
    let now = bench.env.wall();
    let join = async |token: &str| {
        let csr = weft_ca::make_csr(None).unwrap().csr;
        let request = weft_wire::JoinRequest {
            now_unix_ms: None,
            token: token.to_owned(),
            csr: base64::Engine::encode(&base64::engine::general_purpose::STANDARD, csr),
            attestation: None,
        };
        let joined =
            crate::issue::join(&bench.ca, &*bench.store, &request, bench.remote, now).await;
        joined.map(drop)
    };
    let used = bench.create("default", "invoices", 600).await.unwrap();
    join(&used).await.unwrap();
    assert_eq!(code(join(&used).await), "token_used");
    assert_eq!(code(join("nonsense").await), "token_unknown");
    let void = bench.create("default", "orders", 600).await.unwrap();
    let request = crate::admin::types::RevokeRequest {
        spiffe_id: Some("spiffe://weft.local/ns/default/sa/orders".to_owned()),
        ..Default::default()
    };
    crate::issue::revoke(&bench.ca, &request, "uid 0")
        .await
        .unwrap();
    assert_eq!(code(join(&void).await), "token_revoked");

    let acts = recorded(&bench).await;
    let names: Vec<&str> = acts.iter().map(|(event, _)| event.as_str()).collect();
    let expected = [
        "token.created",
        "token.used",
        "token.refused",
        "token.refused",
        "token.created",
        "token.revoked",
        "token.refused",
    ];
    assert_eq!(names, expected);
    assert_eq!(acts[0].1, acts[1].1, "created and used: {acts:?}");
    assert_eq!(acts[2].1, shown(&used), "{acts:?}");
    assert_eq!(acts[3].1, "not a token");
    assert_eq!(acts[5].1, shown(&void), "{acts:?}");
    let log = serde_json::to_string(&bench.ca.audit().page(0).await.unwrap()).unwrap();
    assert!(!log.contains(&used) && !log.contains(&void));
}

#[tokio::test]
async fn a_token_that_nobody_used_in_time_is_recorded_once() {
    let bench = Bench::new().await;
    bench.create("default", "invoices", 1).await.unwrap();
    note_expired(&bench.ca).await.unwrap();
    assert_eq!(recorded(&bench).await.len(), 1, "it is still good");
    let end = bench.env.wall() + Duration::from_secs(1);
    while bench.env.wall() <= end {
        tokio::task::yield_now().await;
    }
    for _ in 0..2 {
        note_expired(&bench.ca).await.unwrap();
    }
    let acts = recorded(&bench).await;
    let names: Vec<&str> = acts.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(names, ["token.created", "token.expired"]);
    assert_eq!(acts[0].1, acts[1].1);
}
