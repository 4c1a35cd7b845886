#![allow(clippy::disallowed_methods)]

use std::sync::Arc;

use super::*;
use crate::store::RedbStore;

struct Bench {
    _dir: tempfile::TempDir,
    env: Env,
    store: Arc<dyn Store>,
    trust_domain: TrustDomain,
    remote: SocketAddr,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::system();
        let store = RedbStore::open(&env, &dir.path().join("store.redb"))
            .await
            .unwrap();
        Self {
            _dir: dir,
            env,
            store: Arc::new(store),
            trust_domain: TrustDomain::parse("weft.local").unwrap(),
            remote: "10.0.0.1:5".parse().unwrap(),
        }
    }

    async fn create(&self, namespace: &str, service: &str, ttl_s: u64) -> Result<String, Reject> {
        let request = TokenRequest {
            namespace: namespace.into(),
            service: service.into(),
            ttl_s,
        };
        create(&self.env, &*self.store, &self.trust_domain, &request)
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
    redeem(&*bench.store, good).await.unwrap();
    assert_eq!(code(bench.check(&token, now).await), "token_used");

    let listed = list(&*bench.store, now).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].state, TokenState::Used);
    assert_eq!(listed[0].used_by.as_deref(), Some("10.0.0.1:5"));
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
    let (one, two) = tokio::join!(redeem(&*bench.store, one), redeem(&*bench.store, two));
    assert!(one.is_ok() != two.is_ok());
    assert_eq!(code(one.and(two)), "token_used");
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
    assert!(bench.store.range("").await.unwrap().entries.is_empty());
}
