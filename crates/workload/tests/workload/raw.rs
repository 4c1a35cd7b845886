//! A bare gRPC client, with messages of its own: fields by number, as others read them.

use std::path::{Path, PathBuf};

use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Svids {
    #[prost(message, repeated, tag = "1")]
    pub svids: Vec<Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub crl: Vec<Vec<u8>>,
    #[prost(btree_map = "string, bytes", tag = "3")]
    pub federated: std::collections::BTreeMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Svid {
    #[prost(string, tag = "1")]
    pub spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub bundle: Vec<u8>,
    #[prost(string, tag = "5")]
    pub hint: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct Bundles {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub crl: Vec<Vec<u8>>,
    #[prost(btree_map = "string, bytes", tag = "2")]
    pub bundles: std::collections::BTreeMap<String, Vec<u8>>,
}

pub async fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connect = tower_service_fn(socket);
    Endpoint::from_static("http://localhost")
        .connect_with_connector(connect)
        .await
        .unwrap()
}

/// Opens the socket, wherever the channel believes to go.
fn tower_service_fn(socket: PathBuf) -> Connector {
    Connector(socket)
}

#[derive(Clone)]
struct Connector(PathBuf);

impl tower_service::Service<Uri> for Connector {
    type Response = TokioIo<UnixStream>;
    type Error = std::io::Error;
    type Future =
        std::pin::Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let socket = self.0.clone();
        Box::pin(async move { UnixStream::connect(socket).await.map(TokioIo::new) })
    }
}

/// Metadata of a call.
pub const TRUE: &[(&str, &str)] = &[("workload.spiffe.io", "true")];

/// A client that is ready for a call, and what it is to send.
async fn prepared<T>(
    channel: Channel,
    metadata: &[(&'static str, &str)],
    message: T,
) -> (Grpc<Channel>, Request<T>) {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    (grpc, request)
}

/// A call that is answered with a stream.
pub async fn stream<T, U>(
    channel: Channel,
    path: &'static str,
    metadata: &[(&'static str, &str)],
    message: T,
) -> Result<Streaming<U>, Status>
where
    T: prost::Message + Send + Sync + 'static,
    U: prost::Message + Default + Send + Sync + 'static,
{
    let (mut grpc, request) = prepared(channel, metadata, message).await;
    let path = http::uri::PathAndQuery::from_static(path);
    let codec = ProstCodec::<T, U>::default();
    let answer = grpc.server_streaming(request, path, codec).await?;
    Ok(answer.into_inner())
}

/// A call that is answered once.
pub async fn unary<T, U>(
    channel: Channel,
    path: &'static str,
    metadata: &[(&'static str, &str)],
    message: T,
) -> Result<U, Status>
where
    T: prost::Message + Send + Sync + 'static,
    U: prost::Message + Default + Send + Sync + 'static,
{
    let (mut grpc, request) = prepared(channel, metadata, message).await;
    let path = http::uri::PathAndQuery::from_static(path);
    let codec = ProstCodec::<T, U>::default();
    Ok(grpc.unary(request, path, codec).await?.into_inner())
}
