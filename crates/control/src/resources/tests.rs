#![allow(clippy::disallowed_methods)]

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::store::RedbStore;

struct Bench {
    _dir: tempfile::TempDir,
    env: Env,
    store: Arc<dyn Store>,
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
        }
    }

    async fn apply(&self, values: &[Value]) -> Result<ApplyReply, Reject> {
        apply(&self.env, &*self.store, values).await
    }

    async fn revision(&self) -> Revision {
        self.store.range("").await.unwrap().revision
    }
}

fn route(name: &str, timeout: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name},
        "spec": {
            "parentRefs": [{"kind": "Service", "group": "", "name": name}],
            "rules": [{
                "timeouts": {"request": timeout},
                "backendRefs": [{"name": name, "port": 80}]
            }]
        }
    })
}

fn actions(reply: &ApplyReply) -> Vec<Action> {
    reply.changes.iter().map(|change| change.action).collect()
}

#[tokio::test]
async fn each_resource_is_created_updated_or_unchanged() {
    let bench = Bench::new().await;
    let first = bench
        .apply(&[route("invoices", "10s"), route("orders", "1s")])
        .await
        .unwrap();
    assert_eq!(actions(&first), [Action::Created, Action::Created]);
    assert_eq!(first.changes[0].key, "HTTPRoute/default/invoices");

    let second = bench
        .apply(&[route("invoices", "5s"), route("orders", "1s")])
        .await
        .unwrap();
    assert_eq!(actions(&second), [Action::Updated, Action::Unchanged]);
    assert!(second.revision > first.revision);

    let before = bench.revision().await;
    let third = bench.apply(&[route("orders", "1s")]).await.unwrap();
    assert_eq!(actions(&third), [Action::Unchanged]);
    assert_eq!(third.revision, first.revision, "in force since then");
    assert_eq!(bench.revision().await, before, "nothing was written");
}

#[tokio::test]
async fn one_bad_resource_and_nothing_is_changed() {
    let bench = Bench::new().await;
    let mut bad = route("invoices", "10s");
    bad["spec"]["rules"][0]["timeouts"]["request"] = json!("ten seconds");
    let mut unknown = route("invoices", "10s");
    unknown["spec"]["colour"] = json!("red");
    let good = route("orders", "1s");
    for (values, word) in [
        (vec![good.clone(), bad], "resource 2"),
        (vec![good.clone(), unknown], "colour"),
        (vec![good.clone(), good], "given twice"),
        (vec![], "no resource"),
    ] {
        let reject = bench.apply(&values).await.unwrap_err();
        assert_eq!(reject.status, StatusCode::BAD_REQUEST);
        let message = reject.problem.message;
        assert!(message.contains(word), "{message}");
        assert!(message.ends_with("nothing was changed"), "{message}");
    }
    assert_eq!(bench.revision().await, 0);
}

#[tokio::test]
async fn what_the_data_plane_cannot_compile_is_refused_before_it_is_stored() {
    let bench = Bench::new().await;
    let mut route = route("invoices", "10s");
    route["spec"]["rules"][0]["matches"] =
        json!([{"path": {"type": "RegularExpression", "value": "(a{1000}){1000}"}}]);
    let reject = bench.apply(&[route]).await.unwrap_err();
    assert_eq!(reject.problem.code, "invalid_resource");
    assert!(
        reject
            .problem
            .message
            .contains("HTTPRoute/default/invoices"),
        "{}",
        reject.problem.message
    );
    assert_eq!(bench.revision().await, 0);
}

#[tokio::test]
async fn list_filters_and_delete_removes() {
    let bench = Bench::new().await;
    bench
        .apply(&[route("invoices", "10s"), route("orders", "1s")])
        .await
        .unwrap();
    let list = |filter: ResourceFilter| {
        let store = bench.store.clone();
        async move { list(&*store, &filter).await.unwrap().resources }
    };
    assert_eq!(list(ResourceFilter::default()).await.len(), 2);
    let one = ResourceFilter {
        name: Some("orders".into()),
        ..ResourceFilter::default()
    };
    assert_eq!(list(one).await[0].key, "HTTPRoute/default/orders");
    let none = ResourceFilter {
        namespace: Some("other".into()),
        ..ResourceFilter::default()
    };
    assert!(list(none).await.is_empty());

    let key: ResourceKey = "HTTPRoute/default/orders".parse().unwrap();
    let reply = delete(&bench.env, &*bench.store, std::slice::from_ref(&key))
        .await
        .unwrap();
    assert_eq!(actions(&reply), [Action::Deleted]);
    assert_eq!(reply.revision, bench.revision().await);
    let again = delete(&bench.env, &*bench.store, std::slice::from_ref(&key))
        .await
        .unwrap_err();
    assert_eq!(again.status, StatusCode::NOT_FOUND);
    assert_eq!(list(ResourceFilter::default()).await.len(), 1);
}

#[tokio::test]
async fn applies_at_the_same_time_all_succeed() {
    let bench = Bench::new().await;
    let values: Vec<[Value; 1]> = (0..4).map(|i| [route(&format!("s{i}"), "1s")]).collect();
    let (a, b, c, d) = tokio::join!(
        bench.apply(&values[0]),
        bench.apply(&values[1]),
        bench.apply(&values[2]),
        bench.apply(&values[3]),
    );
    for reply in [a, b, c, d] {
        assert_eq!(actions(&reply.unwrap()), [Action::Created]);
    }
}
