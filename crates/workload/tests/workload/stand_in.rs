//! A provider that gives the answers that it is told, good or not, and then ends the stream.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixListener;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::raw::{Nothing, Svids};

type Answers = Vec<Result<Svids, Status>>;

pub struct StandIn {
    pub socket: PathBuf,
    _dir: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl StandIn {
    pub fn start(answers: Answers) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let answers = Arc::new(Mutex::new(answers));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let answers = Arc::clone(&answers);
                let service = service_fn(move |request: http::Request<Incoming>| {
                    let said = request.headers().get("workload.spiffe.io").cloned();
                    let call = request.uri().path().to_owned();
                    let answers = std::mem::take(&mut *answers.lock().unwrap());
                    async move {
                        assert_eq!(call, "/SpiffeWorkloadAPI/FetchX509SVID");
                        assert_eq!(said.unwrap(), "true");
                        let mut grpc = Grpc::new(ProstCodec::<Svids, Nothing>::default());
                        let request = request.map(Body::new);
                        let answer = grpc.server_streaming(Give(answers), request).await;
                        Ok::<_, Infallible>(answer)
                    }
                });
                let connection = http2::Builder::new(TokioExecutor::new());
                drop(tokio::spawn(
                    connection.serve_connection(TokioIo::new(stream), service),
                ));
            }
        });
        Self {
            socket,
            _dir: dir,
            task,
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Give(Answers);

impl tower_service::Service<Request<Nothing>> for Give {
    type Response = Response<tokio_stream::Iter<std::vec::IntoIter<Result<Svids, Status>>>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Nothing>) -> Self::Future {
        let answers = std::mem::take(&mut self.0);
        std::future::ready(Ok(Response::new(tokio_stream::iter(answers))))
    }
}
