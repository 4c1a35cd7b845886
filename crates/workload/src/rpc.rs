//! From the path of a call to what answers it.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use weft_certs::Identity;

use crate::jwt;
use crate::offer;
use crate::proto::sds::{self, DiscoveryRequest};
use crate::proto::workload::{
    JwtBundlesRequest, JwtBundlesResponse, JwtSvidRequest, ValidateJwtSvidRequest,
    X509BundlesRequest, X509BundlesResponse, X509SvidRequest, X509SvidResponse, path,
};
use crate::sds as secrets;
use crate::session::Session;

/// Larger than any request: a token of a few kilobytes is the longest part of one.
pub(crate) const MAX_REQUEST: usize = 64 * 1024;
/// A request is one small message; a caller that has not sent it by then never will. A control node that is asked for
/// a token has ten seconds.
const PATIENCE: Duration = Duration::from_secs(15);
/// Workload Endpoint §6.1: proves that the caller means this, and is no tricked browser or proxy.
pub(crate) const SECURITY_HEADER: &str = "workload.spiffe.io";

/// Answers one call.
pub(crate) async fn answer(session: Arc<Session>, request: Request<Incoming>) -> Response<Body> {
    let _call = session.begin();
    let request = request.map(Body::new);
    match timeout(PATIENCE, dispatch(&session, request)).await {
        Ok(response) => response,
        Err(_) => Status::deadline_exceeded("the request did not arrive in time").into_http(),
    }
}

async fn dispatch(session: &Arc<Session>, request: Request<Body>) -> Response<Body> {
    let call = request.uri().path().to_owned();
    if call.starts_with(path::PREFIX) && !has_security_header(&request) {
        return Status::invalid_argument(
            "security header missing: every call needs the metadata workload.spiffe.io: true",
        )
        .into_http();
    }
    match call.as_str() {
        path::X509_SVID => {
            let handler =
                Handler(|_: tonic::Request<X509SvidRequest>| x509_svid(Arc::clone(session)));
            grpc().server_streaming(handler, request).await
        }
        path::X509_BUNDLES => {
            let handler =
                Handler(|_: tonic::Request<X509BundlesRequest>| x509_bundles(Arc::clone(session)));
            grpc().server_streaming(handler, request).await
        }
        path::JWT_SVID => {
            let handler = Handler(|request: tonic::Request<JwtSvidRequest>| {
                jwt::fetch(Arc::clone(session), request.into_inner())
            });
            grpc().unary(handler, request).await
        }
        path::JWT_BUNDLES => {
            let handler =
                Handler(|_: tonic::Request<JwtBundlesRequest>| jwt_bundles(Arc::clone(session)));
            grpc().server_streaming(handler, request).await
        }
        path::VALIDATE_JWT_SVID => {
            let handler = Handler(|request: tonic::Request<ValidateJwtSvidRequest>| {
                jwt::validate(Arc::clone(session), request.into_inner())
            });
            grpc().unary(handler, request).await
        }
        sds::path::STREAM => {
            let handler = Handler(
                |request: tonic::Request<tonic::Streaming<DiscoveryRequest>>| {
                    secrets::stream(Arc::clone(session), request.into_inner())
                },
            );
            grpc().streaming(handler, request).await
        }
        sds::path::FETCH => {
            let handler = Handler(|request: tonic::Request<DiscoveryRequest>| {
                secrets::fetch(Arc::clone(session), request.into_inner())
            });
            grpc().unary(handler, request).await
        }
        _ => Status::unimplemented("this call is not known here").into_http(),
    }
}

/// Answers of a server stream.
type Answers<T> = Result<tonic::Response<ReceiverStream<Result<T, Status>>>, Status>;

async fn x509_svid(session: Arc<Session>) -> Answers<X509SvidResponse> {
    let version = |identity: &Identity| (identity.generation, identity.bundle_generation);
    let stream = session.follow(version, offer::x509_svid).await?;
    Ok(tonic::Response::new(stream))
}

async fn x509_bundles(session: Arc<Session>) -> Answers<X509BundlesResponse> {
    let version = |identity: &Identity| identity.bundle_generation;
    let stream = session.follow(version, offer::x509_bundles).await?;
    Ok(tonic::Response::new(stream))
}

async fn jwt_bundles(session: Arc<Session>) -> Answers<JwtBundlesResponse> {
    let version = |identity: &Identity| identity.bundle_generation;
    let stream = session.follow(version, jwt::bundles).await?;
    Ok(tonic::Response::new(stream))
}

/// Exactly `true`, once.
fn has_security_header<B>(request: &Request<B>) -> bool {
    let mut values = request.headers().get_all(SECURITY_HEADER).iter();
    values.next().is_some_and(|value| value == "true") && values.next().is_none()
}

fn grpc<T, U>() -> Grpc<ProstCodec<T, U>>
where
    T: prost::Message + Send + 'static,
    U: prost::Message + Default + Send + 'static,
{
    Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_REQUEST)
}

/// A closure as the kind of service that tonic calls.
struct Handler<F>(F);

impl<F, R, A, O> tower_service::Service<R> for Handler<F>
where
    F: FnMut(R) -> A,
    A: Future<Output = Result<O, Status>>,
{
    type Response = O;
    type Error = Status;
    type Future = A;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> A {
        (self.0)(request)
    }
}
