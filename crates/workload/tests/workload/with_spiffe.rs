//! The published `spiffe` crate as the client.

use spiffe::workload_api::error::WorkloadApiError;
use spiffe::{WorkloadApiClient, X509Source};

use weft_certs::CertificateDer;

use crate::lab::*;

async fn client(lab: &Lab) -> WorkloadApiClient {
    let connecting = WorkloadApiClient::connect_to(lab.address());
    within(connecting).await.unwrap()
}

#[tokio::test]
async fn the_spiffe_crate_takes_svid_and_bundles() {
    let lab = Lab::new().await;
    let client = client(&lab).await;
    let svid = within(client.fetch_x509_svid()).await.unwrap();
    assert_eq!(svid.spiffe_id().to_string(), INVOICES);
    let chain: Vec<_> = svid
        .cert_chain()
        .iter()
        .map(|c| CertificateDer::from(c.as_bytes().to_vec()))
        .collect();
    assert_eq!(chain, lab.identity.current().svid.chain());
    let set = within(client.fetch_x509_bundles()).await.unwrap();
    let bundle = set.get(&"weft.local".parse().unwrap()).unwrap();
    assert_eq!(bundle.authorities()[0].as_bytes(), lab.root.der.as_ref());
    assert_eq!(set.len(), 1);
}

#[tokio::test]
async fn the_spiffe_crates_source_follows_every_rotation() {
    let lab = Lab::new().await;
    let source = X509Source::builder().endpoint(lab.address()).build();
    let source = within(source).await.unwrap();
    let mut updates = source.updated();
    let leaf = || source.svid().unwrap().leaf().as_bytes().to_vec();
    for _ in 0..3 {
        lab.rotate();
        within(async {
            while leaf() != lab.identity.current().svid.chain()[0].as_ref() {
                updates.changed().await.unwrap();
            }
        })
        .await;
    }
    let other = Ca::root("other.example");
    lab.trust([bundle("other.example", &[&other])]);
    let domain = "other.example".parse().unwrap();
    within(async {
        while source.try_bundle_for_trust_domain(&domain).is_none() {
            updates.changed().await.unwrap();
        }
    })
    .await;
    within(source.shutdown()).await;
}

#[tokio::test]
async fn the_spiffe_crate_understands_that_no_identity_is_issued() {
    let lab = Lab::with(vec![], in_an_hour()).await;
    let client = client(&lab).await;
    let error = within(client.fetch_x509_svid()).await.unwrap_err();
    assert!(
        matches!(error, WorkloadApiError::NoIdentityIssued),
        "{error}"
    );
}
