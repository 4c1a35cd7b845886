//! The other side: a client takes what the socket gives, and is strict with what others give.

use std::collections::BTreeMap;

use tonic::Status;
use weft_env::{Env, Tasks};
use weft_workload::{Provided, ProviderError, Subscription};

use crate::lab::{Ca, INVOICES, Lab, bundle, in_an_hour, within};
use crate::raw::{Svid, Svids};
use crate::stand_in::StandIn;

fn tasks() -> Tasks {
    Tasks::new(&Env::system())
}

#[tokio::test]
async fn an_identity_is_followed_through_rotations_of_svid_and_bundles() {
    let lab = Lab::new().await;
    let tasks = tasks();
    let opened = within(Subscription::open(&tasks, &lab.socket)).await;
    let (mut subscription, first) = opened.unwrap();
    let current = || lab.identity.current();
    assert_eq!(first.svid.chain(), current().svid.chain());
    let own = first.bundles.get(&crate::lab::td("weft.local")).unwrap();
    assert_eq!(own.roots, std::slice::from_ref(&lab.root.der));

    let next = lab.issuing.svid(INVOICES, in_an_hour());
    let now = std::time::SystemTime::now();
    lab.identity.replace_svid(next, now).unwrap();
    let second = within(subscription.next()).await.unwrap();
    assert_eq!(second.svid.chain(), current().svid.chain());
    assert_ne!(second.svid.chain(), first.svid.chain());

    let friend = Ca::root("friend.example");
    let mut bundles = (*current().bundles).clone();
    bundles.insert(bundle("friend.example", &[&friend]));
    lab.identity.replace_bundles(bundles, now).unwrap();
    let third = within(subscription.next()).await.unwrap();
    let known = third.bundles.get(&crate::lab::td("friend.example"));
    assert_eq!(known.unwrap().roots, [friend.der]);
    drop(subscription);
    within(tasks.ended()).await;
}

#[tokio::test]
async fn who_is_not_allowed_has_no_identity() {
    let nobody = vec!["uid=1".parse().unwrap()];
    let lab = Lab::with(nobody, in_an_hour()).await;
    let refused = within(Subscription::open(&tasks(), &lab.socket)).await;
    let error = refused.err().unwrap();
    assert!(matches!(error, ProviderError::NoIdentity(_)), "{error}");
    assert!(error.next_step().contains("--workload-allow"));
}

/// A message as it should be, to be spoiled.
fn good(ca: &Ca) -> Svids {
    let svid = ca.svid(INVOICES, in_an_hour());
    Svids {
        svids: vec![Svid {
            spiffe_id: INVOICES.to_owned(),
            chain: svid.chain().iter().flat_map(|der| der.to_vec()).collect(),
            key: svid.private_key().secret_der().to_vec(),
            bundle: ca.der.to_vec(),
            hint: String::new(),
        }],
        crl: Vec::new(),
        federated: BTreeMap::new(),
    }
}

async fn first_of(answers: Vec<Result<Svids, Status>>) -> Result<Provided, ProviderError> {
    let provider = StandIn::start(answers);
    let opened = within(Subscription::open(&tasks(), &provider.socket)).await;
    opened.map(|(_, provided)| provided)
}

#[tokio::test]
async fn workload_api_4_5_a_message_that_breaks_a_rule_is_not_used_as_a_whole() {
    let ca = Ca::root("weft.local");
    let taken = first_of(vec![Ok(good(&ca))]).await.unwrap();
    assert_eq!(taken.svid.id().as_str(), INVOICES);
    type Spoil<'a> = Box<dyn Fn(&mut Svids) + 'a>;
    let cases: Vec<(&str, Spoil<'_>)> = vec![
        ("names no identity", Box::new(|m| m.svids.clear())),
        (
            "spiffe_id is empty",
            Box::new(|m| m.svids[0].spiffe_id.clear()),
        ),
        ("x509_svid is empty", Box::new(|m| m.svids[0].chain.clear())),
        (
            "x509_svid_key is empty",
            Box::new(|m| m.svids[0].key.clear()),
        ),
        ("bundle is empty", Box::new(|m| m.svids[0].bundle.clear())),
        (
            "not of the identity that is named",
            Box::new(|m| m.svids[0].spiffe_id.push('x')),
        ),
        (
            "not the key",
            Box::new(|m| m.svids[0].key = good(&ca).svids[0].key.clone()),
        ),
        ("certificate", Box::new(|m| m.svids[0].chain.push(0))),
        ("weft.local", Box::new(|m| m.svids[0].bundle.truncate(9))),
        (
            "friend.example",
            Box::new(|m| {
                let name = "spiffe://friend.example".to_owned();
                m.federated.insert(name, vec![1]);
            }),
        ),
        (
            "trust domain",
            Box::new(|m| drop(m.federated.insert("Not A Name".to_owned(), Vec::new()))),
        ),
    ];
    for (word, spoil) in cases {
        let mut message = good(&ca);
        spoil(&mut message);
        let error = first_of(vec![Ok(message)]).await.err().unwrap();
        assert!(
            matches!(error, ProviderError::Unusable(_)),
            "{word}: {error}"
        );
        assert!(error.to_string().contains(word), "{word}: {error}");
    }
}

#[tokio::test]
async fn a_federated_bundle_does_not_take_the_place_of_the_own_one() {
    let (ca, other) = (Ca::root("weft.local"), Ca::root("weft.local"));
    let mut message = good(&ca);
    let name = "spiffe://weft.local".to_owned();
    message.federated.insert(name, other.der.to_vec());
    let taken = first_of(vec![Ok(message)]).await.unwrap();
    let own = taken.bundles.get(&crate::lab::td("weft.local")).unwrap();
    assert_eq!(own.roots, [ca.der]);
}

#[tokio::test]
async fn workload_endpoint_6_what_a_provider_says_by_its_status_is_told_apart() {
    let is = |code: fn(String) -> Status| async move {
        first_of(vec![Err(code("it says why\n".to_owned()))])
            .await
            .err()
            .unwrap()
    };
    let denied = is(Status::permission_denied).await;
    assert!(matches!(denied, ProviderError::NoIdentity(_)) && !denied.is_final());
    assert!(denied.to_string().contains("it says why )"), "{denied}");
    let never: [fn(String) -> Status; 2] = [Status::invalid_argument, Status::unimplemented];
    for code in never {
        assert!(is(code).await.is_final());
    }
    let later: [fn(String) -> Status; 3] = [Status::unavailable, Status::internal, Status::unknown];
    for code in later {
        let error = is(code).await;
        assert!(matches!(error, ProviderError::Unavailable(_)), "{error}");
    }
    let ended = first_of(Vec::new()).await.err().unwrap();
    assert!(matches!(ended, ProviderError::Ended), "{ended}");
    let dir = tempfile::tempdir().unwrap();
    let nobody = Subscription::open(&tasks(), &dir.path().join("s")).await;
    let error = nobody.err().unwrap();
    assert!(matches!(error, ProviderError::Connect(_)), "{error}");
}
