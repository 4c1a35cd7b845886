//! JWT-SVIDs over the Workload API: with the `spiffe` crate where it can, else with a bare client.

use std::time::{Duration, SystemTime};

use spiffe::{JwtSource, WorkloadApiClient};
use tonic::Code;
use weft_workload::NoToken;

use crate::lab::*;
use crate::raw::{Nothing, TRUE, channel, stream, unary};

const SVID: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
const BUNDLES: &str = "/SpiffeWorkloadAPI/FetchJWTBundles";
const VALIDATE: &str = "/SpiffeWorkloadAPI/ValidateJWTSVID";
const AUDIENCE: &str = "billing";

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, repeated, tag = "1")]
    audience: Vec<String>,
    #[prost(string, tag = "2")]
    spiffe_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Svids {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(string, tag = "2")]
    svid: String,
    #[prost(string, tag = "3")]
    hint: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Check {
    #[prost(string, tag = "1")]
    audience: String,
    #[prost(string, tag = "2")]
    svid: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Bundles {
    #[prost(btree_map = "string, bytes", tag = "1")]
    bundles: std::collections::BTreeMap<String, Vec<u8>>,
}

async fn fetch(lab: &Lab, audience: &[&str], id: &str) -> Result<Svids, Code> {
    let ask = Ask {
        audience: audience.iter().map(|&name| name.to_owned()).collect(),
        spiffe_id: id.to_owned(),
    };
    let answer = unary(channel(&lab.socket).await, SVID, TRUE, ask);
    within(answer).await.map_err(|status| status.code())
}

async fn check(lab: &Lab, audience: &str, svid: &str) -> Code {
    let check = Check {
        audience: audience.to_owned(),
        svid: svid.to_owned(),
    };
    let answer = unary::<_, Nothing>(channel(&lab.socket).await, VALIDATE, TRUE, check);
    within(answer)
        .await
        .map_or_else(|status| status.code(), |_| Code::Ok)
}

fn in_five_minutes() -> SystemTime {
    SystemTime::now() + Duration::from_secs(300)
}

#[tokio::test]
async fn the_spiffe_crate_takes_a_token_and_both_sides_find_it_good() {
    let lab = Lab::new().await;
    let client = within(WorkloadApiClient::connect_to(lab.address()))
        .await
        .unwrap();
    let svid = within(client.fetch_jwt_svid([AUDIENCE, "other"], None))
        .await
        .unwrap();
    assert_eq!(svid.spiffe_id().to_string(), INVOICES);
    // Checked by the sidecar, and by the crate with the bundles that it fetched.
    let token = svid.token();
    let checked = within(client.validate_jwt_token(AUDIENCE, token))
        .await
        .unwrap();
    assert_eq!(checked.spiffe_id().to_string(), INVOICES);
    let bundles = within(client.fetch_jwt_bundles()).await.unwrap();
    let known = spiffe::JwtSvid::parse_and_validate(token, &bundles, &[AUDIENCE]).unwrap();
    assert_eq!(known.spiffe_id().to_string(), INVOICES);
    assert!(spiffe::JwtSvid::parse_and_validate(token, &bundles, &["nobody"]).is_err());
}

#[tokio::test]
async fn the_spiffe_crates_source_follows_the_rotation_of_keys() {
    let lab = Lab::new().await;
    let source = JwtSource::builder().endpoint(lab.address()).build();
    let source = within(source).await.unwrap();
    let mut updates = source.updated();
    lab.signer.rotate();
    lab.trust([]);
    let kid = lab.signer.key().kid().to_owned();
    let domain = "weft.local".parse().unwrap();
    within(async {
        loop {
            let bundle = source.try_bundle_for_trust_domain(&domain);
            if bundle.is_some_and(|bundle| bundle.find_jwt_authority(&kid).is_some()) {
                return;
            }
            updates.changed().await.unwrap();
        }
    })
    .await;
    within(source.shutdown()).await;
}

#[tokio::test]
async fn workload_api_5_1_a_token_needs_an_audience_and_is_for_the_callers_identity_only() {
    let lab = Lab::new().await;
    let answer = fetch(&lab, &[AUDIENCE], "").await.unwrap();
    assert_eq!(answer.svids.len(), 1);
    assert_eq!(answer.svids[0].spiffe_id, INVOICES);
    assert_eq!(answer.svids[0].hint, "");
    assert!(fetch(&lab, &[AUDIENCE], INVOICES).await.is_ok());
    let orders = "spiffe://weft.local/ns/default/sa/orders";
    let cases: [(&[&str], &str, Code); 4] = [
        (&[], "", Code::InvalidArgument),
        (&[AUDIENCE, ""], "", Code::InvalidArgument),
        (&[AUDIENCE], "invoices", Code::InvalidArgument),
        (&[AUDIENCE], orders, Code::PermissionDenied),
    ];
    for (audience, id, code) in cases {
        assert_eq!(
            fetch(&lab, audience, id).await,
            Err(code),
            "{audience:?} {id}"
        );
    }
}

#[tokio::test]
async fn what_the_control_node_refuses_comes_with_the_code_that_tells_whether_to_try_again() {
    let lab = Lab::new().await;
    let why = || "why".to_owned();
    for (no, code) in [
        (NoToken::BadAudience(why()), Code::InvalidArgument),
        (NoToken::Denied(why()), Code::PermissionDenied),
        (NoToken::Unavailable(why()), Code::Unavailable),
    ] {
        lab.signer.refuse(no);
        assert_eq!(fetch(&lab, &[AUDIENCE], "").await, Err(code));
    }
}

#[tokio::test]
async fn a_token_is_given_again_while_it_is_young_and_its_key_is_trusted() {
    let lab = Lab::new().await;
    let get = async |audience: &[&str]| {
        let answer = fetch(&lab, audience, "").await.unwrap();
        answer.svids[0].svid.clone()
    };
    let first = get(&["a", "b"]).await;
    assert_eq!(get(&["b", "a", "b"]).await, first, "the order says nothing");
    assert_ne!(get(&["a"]).await, first);
    lab.signer.rotate();
    lab.trust([]);
    assert_ne!(
        get(&["a", "b"]).await,
        first,
        "its key is not trusted any more"
    );
}

#[tokio::test]
async fn workload_api_5_2_jwt_bundles_hold_keys_for_tokens_only_and_follow_their_rotation() {
    let lab = Lab::new().await;
    let opened = stream(channel(&lab.socket).await, BUNDLES, TRUE, Nothing {});
    let mut opened: tonic::Streaming<Bundles> = within(opened).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let message = within(opened.message()).await.unwrap().unwrap();
        let names: Vec<_> = message.bundles.keys().map(String::as_str).collect();
        assert_eq!(names, ["spiffe://weft.local"]);
        let jwks: serde_json::Value =
            serde_json::from_slice(&message.bundles["spiffe://weft.local"]).unwrap();
        let keys = jwks["keys"].as_array().unwrap();
        assert_eq!(keys.len(), 1, "{jwks}");
        assert_eq!(keys[0]["use"], "jwt-svid");
        assert_eq!(keys[0]["kid"], lab.signer.key().kid());
        seen.push(keys[0].clone());
        lab.signer.rotate();
        lab.trust([]);
    }
    assert_ne!(seen[0], seen[1]);
}

#[tokio::test]
async fn workload_api_5_3_a_token_that_is_not_good_is_an_invalid_argument() {
    let lab = Lab::new().await;
    let audience = [AUDIENCE.to_owned()];
    let good = lab.signer.sign(&audience, in_five_minutes());
    assert_eq!(check(&lab, AUDIENCE, &good).await, Code::Ok);
    let past = SystemTime::now() - Duration::from_secs(60);
    let expired = lab.signer.sign(&audience, past);
    let stranger = crate::tokens::Signer::new(INVOICES).sign(&audience, in_five_minutes());
    let cut = &good[..good.len() - 4];
    for (audience, svid) in [
        ("", good.as_str()),
        (AUDIENCE, ""),
        ("other", &good),
        (AUDIENCE, &expired),
        (AUDIENCE, &stranger),
        (AUDIENCE, cut),
        (AUDIENCE, "a.b.c"),
    ] {
        let code = check(&lab, audience, svid).await;
        assert_eq!(code, Code::InvalidArgument, "{audience} {svid}");
    }
}

#[tokio::test]
async fn tokens_are_for_those_with_an_entry_only_and_need_the_header_too() {
    let lab = Lab::with(vec![], in_an_hour()).await;
    assert_eq!(
        fetch(&lab, &[AUDIENCE], "").await,
        Err(Code::PermissionDenied)
    );
    let good = lab.signer.sign(&[AUDIENCE.to_owned()], in_five_minutes());
    assert_eq!(check(&lab, AUDIENCE, &good).await, Code::PermissionDenied);
    let opened = stream::<_, Bundles>(channel(&lab.socket).await, BUNDLES, TRUE, Nothing {});
    let refused = within(opened).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    for call in [SVID, VALIDATE, BUNDLES] {
        let answer = unary::<_, Nothing>(channel(&lab.socket).await, call, &[], Nothing {});
        let refused = within(answer).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{call}");
    }
}
