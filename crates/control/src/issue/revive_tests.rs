use std::time::Duration;

use weft_env::Env;

use super::*;
use crate::store::Txn;
use crate::testing;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[tokio::test]
async fn an_issuing_ca_that_holds_stays_and_one_that_has_ended_or_not_begun_is_replaced() {
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let (_, ca) = testing::authority(&env, dir.path()).await;
    let now = ca.wall();
    let told = |at| next(&ca.authority(), at).unwrap();
    assert_eq!(told(now), Next::Alive);
    assert_eq!(told(now + 29 * DAY), Next::Alive);
    assert_eq!(told(now + 31 * DAY), Next::Intend);
    assert_eq!(told(now - DAY), Next::Intend);
    intend(&ca).await.unwrap();
    assert_eq!(
        next(&ca.authority(), now + 31 * DAY).unwrap(),
        Next::Prepare
    );
    prepare(&ca).await.unwrap();
    // That one ends on the same day: it is in the way of another.
    let told = |at| next(&ca.authority(), at).unwrap();
    assert_eq!(told(now + 31 * DAY), Next::Discard("issuing-2".to_owned()));
}

#[tokio::test]
async fn a_rotation_goes_on_with_the_one_that_takes_its_place() {
    let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
    let (store, ca) = testing::authority(&env, dir.path()).await;
    let mut plan = Plan::new(1, Tier::Root, Vec::new(), ca.wall());
    plan.issuing = Some("issuing-1".to_owned());
    store.commit(Shared::put(Txn::new(), &plan)).await.unwrap();
    intend(&ca).await.unwrap();
    prepare(&ca).await.unwrap();
    replace(&ca, "issuing-1".to_owned(), "issuing-2".to_owned())
        .await
        .unwrap();
    let authority = ca.authority();
    let state = |id| authority.journal().slot(Tier::Issuing, id).unwrap().state;
    assert_eq!(state("issuing-1"), SlotState::Removed);
    assert_eq!(state("issuing-2"), SlotState::Active);
    let plan = stored(&*store).await.unwrap().unwrap();
    assert_eq!(plan.issuing.as_deref(), Some("issuing-2"));
    revive(&ca).await.unwrap();
}
