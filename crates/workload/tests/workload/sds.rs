//! Secret discovery, with a bare client: what an Envoy cannot be made to do.

use tonic::client::Grpc;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

use crate::lab::*;
use crate::raw::{Nothing, channel, stream};

#[derive(Clone, PartialEq, prost::Message)]
struct Ask {
    #[prost(string, repeated, tag = "3")]
    names: Vec<String>,
    #[prost(string, tag = "4")]
    kind: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Answer {
    #[prost(string, tag = "1")]
    version: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Nothing>,
    #[prost(string, tag = "4")]
    kind: String,
}

const SERVICE: &str = "/envoy.service.secret.v3.SecretDiscoveryService";

async fn fetch(lab: &Lab, names: &[&str], kind: &str) -> Result<Answer, Status> {
    let mut grpc = Grpc::new(channel(&lab.socket).await);
    grpc.ready().await.unwrap();
    let ask = Ask {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        kind: kind.to_owned(),
    };
    let path = format!("{SERVICE}/FetchSecrets").parse().unwrap();
    let codec = ProstCodec::<Ask, Answer>::default();
    let answer = within(grpc.unary(tonic::Request::new(ask), path, codec)).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn secrets_are_fetched_once_too() {
    let lab = Lab::new().await;
    let answer = fetch(&lab, &["default", "ROOTCA", "ALL"], "")
        .await
        .unwrap();
    assert_eq!(answer.resources.len(), 3);
    assert_eq!(
        answer.kind,
        "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
    );
    let code = |answer: Result<Answer, Status>| answer.unwrap_err().code();
    let unknown = fetch(&lab, &["other"], "").await;
    assert_eq!(code(unknown), Code::InvalidArgument);
    let other = fetch(&lab, &[], "type.googleapis.com/google.protobuf.Any").await;
    assert_eq!(code(other), Code::InvalidArgument);
}

#[tokio::test]
async fn secrets_are_for_those_with_an_entry_only() {
    let lab = Lab::with(vec![], in_an_hour()).await;
    let answer = fetch(&lab, &["default"], "").await;
    assert_eq!(answer.unwrap_err().code(), Code::PermissionDenied);
    let path = "/envoy.service.secret.v3.SecretDiscoveryService/StreamSecrets";
    let streamed = stream::<_, Answer>(channel(&lab.socket).await, path, &[], Nothing {});
    let refused = within(streamed).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}

#[tokio::test]
async fn the_delta_variant_is_unimplemented_as_it_is_in_spire() {
    let lab = Lab::new().await;
    let path = "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets";
    let streamed = stream::<_, Answer>(channel(&lab.socket).await, path, &[], Nothing {});
    let refused = within(streamed).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
}
