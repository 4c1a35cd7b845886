//! The other end of the local socket: what the command line calls.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::timeout;
use weft_env::{Env, Stream};
use weft_wire::Problem;

use super::types::{
    ApplyReply, ApplyRequest, CaInfo, DeleteRequest, EdgeList, Progress, ResourceFilter,
    ResourceList, RotateCa, RotateCerts, Status, TokenCreated, TokenInfo, TokenRequest, WaitReply,
};
use super::{MAX_REPLY, query};

/// Time for the socket to accept: the node is on this machine.
const CONNECT: Duration = Duration::from_secs(5);
/// Time for an ordinary reply. An apply that validates thousands of resources takes part of a second.
pub(super) const REPLY: Duration = Duration::from_secs(30);
/// Longest line of a progress stream, in bytes.
const MAX_LINE: usize = 4 * 1024 * 1024;

/// Why the control node could not be asked, or said no.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// Nobody listens there.
    #[error(
        "no control node runs on the state directory {dir}; start one with: weft control --state-dir {dir}",
        dir = dir.display()
    )]
    NotRunning {
        /// The state directory.
        dir: PathBuf,
    },
    /// The socket belongs to someone else.
    #[error(
        "you may not use the control node of {dir}: permission denied; run this as the user who runs the control node, or as root",
        dir = dir.display()
    )]
    Denied {
        /// The state directory.
        dir: PathBuf,
    },
    /// The control node refused; the message says why and what to do.
    #[error("{}", .0.message)]
    Refused(Problem),
    /// No reply in time.
    #[error("the control node did not answer within {} s; look at its log", .0.as_secs())]
    Timeout(Duration),
    /// The connection broke.
    #[error(
        "the control node went away before it had answered ({0}): what was asked may have been done or not; see that it runs, look with weft status or weft get, and ask again"
    )]
    Broken(String),
    /// There is no way to the socket: nothing was asked.
    #[error("{0}")]
    Unreachable(String),
    /// The reply makes no sense to this version.
    #[error("the control node's reply cannot be read ({0}); is it of another version?")]
    Unreadable(String),
}

/// Asks the control node of one state directory. Each call uses a connection of its own.
#[derive(Debug, Clone)]
pub struct AdminClient {
    env: Env,
    dir: PathBuf,
}

impl AdminClient {
    /// Checks that a control node runs on the state directory.
    ///
    /// # Errors
    /// [`AdminError::NotRunning`], [`AdminError::Denied`].
    pub async fn connect(env: &Env, state_dir: &Path) -> Result<Self, AdminError> {
        let client = Self {
            env: env.clone(),
            dir: state_dir.to_owned(),
        };
        drop(client.dial().await?);
        Ok(client)
    }

    /// Makes a one-time join token.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for a reserved namespace, a bad name or a life that is out of bounds.
    pub async fn create_token(&self, request: &TokenRequest) -> Result<TokenCreated, AdminError> {
        self.call(Method::POST, "/v1/tokens", Some(request)).await
    }

    /// All tokens of the last day.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, AdminError> {
        self.get("/v1/tokens").await
    }

    /// Validates the resources together with what is stored, then stores all or none.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with the resource at fault; nothing was changed.
    pub async fn apply<R: Serialize>(&self, resources: &[R]) -> Result<ApplyReply, AdminError> {
        let resources = resources
            .iter()
            .map(serde_json::to_value)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| AdminError::Unreadable(error.to_string()))?;
        let request = ApplyRequest { resources };
        self.call(Method::POST, "/v1/apply", Some(&request)).await
    }

    /// Stored resources.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn resources(&self, filter: &ResourceFilter) -> Result<ResourceList, AdminError> {
        let mut pairs = Vec::new();
        for (name, value) in [
            ("kind", &filter.kind),
            ("namespace", &filter.namespace),
            ("name", &filter.name),
        ] {
            if let Some(value) = value {
                pairs.push((name, value.as_str()));
            }
        }
        self.get(&format!("/v1/resources{}", query::encode(&pairs)))
            .await
    }

    /// Removes one resource.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if it is not there, or others need it.
    pub async fn delete(
        &self,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<ApplyReply, AdminError> {
        self.delete_all(vec![format!("{kind}/{namespace}/{name}")])
            .await
    }

    /// Removes resources, all or none.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if one is not there, or others need it.
    pub async fn delete_all(&self, keys: Vec<String>) -> Result<ApplyReply, AdminError> {
        let request = DeleteRequest { keys };
        self.call(Method::POST, "/v1/delete", Some(&request)).await
    }

    /// The control node and every sidecar.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn status(&self) -> Result<Status, AdminError> {
        self.get("/v1/status").await
    }

    /// Returns when every live sidecar has `revision` in force, one refuses it, or `deadline` has passed.
    ///
    /// # Errors
    /// [`AdminError`]. Stragglers are no error: see [`WaitReply::is_complete`].
    pub async fn wait(&self, revision: u64, deadline: Duration) -> Result<WaitReply, AdminError> {
        let path = format!(
            "/v1/wait?revision={revision}&timeout_ms={}",
            deadline.as_millis()
        );
        let request = request(Method::GET, &path, None::<&()>)?;
        self.exchange(request, REPLY + deadline).await
    }

    /// Latency and success of every edge.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn edges(&self) -> Result<EdgeList, AdminError> {
        self.get("/v1/edges").await
    }

    /// The authority.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn ca(&self) -> Result<CaInfo, AdminError> {
        self.get("/v1/ca").await
    }

    /// Replaces the issuing certificate and every certificate under it. It goes on if the stream is dropped.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if another rotation is under way.
    pub async fn rotate_ca(&self, request: &RotateCa) -> Result<ProgressStream, AdminError> {
        self.stream("/v1/ca/rotate", request).await
    }

    /// Replaces the certificates of sidecars. It goes on if the stream is dropped.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if another rotation is under way.
    pub async fn rotate_certs(&self, request: &RotateCerts) -> Result<ProgressStream, AdminError> {
        self.stream("/v1/certs/rotate", request).await
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, AdminError> {
        self.call(Method::GET, path, None::<&()>).await
    }

    pub(super) async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, AdminError> {
        self.exchange(request(method, path, body)?, REPLY).await
    }

    pub(super) async fn exchange<T: DeserializeOwned>(
        &self,
        request: Request<Full<Bytes>>,
        limit: Duration,
    ) -> Result<T, AdminError> {
        let exchange = async {
            let body = self.send(request).await?.body;
            let body = whole(body).await?;
            serde_json::from_slice(&body).map_err(|error| AdminError::Unreadable(error.to_string()))
        };
        timeout(limit, exchange)
            .await
            .map_err(|_| AdminError::Timeout(limit))?
    }

    async fn stream(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<ProgressStream, AdminError> {
        let request = request(Method::POST, path, Some(body))?;
        timeout(REPLY, self.send(request))
            .await
            .map_err(|_| AdminError::Timeout(REPLY))?
    }

    /// Sends one request on a connection of its own; a refusal becomes an error.
    async fn send(&self, request: Request<Full<Bytes>>) -> Result<ProgressStream, AdminError> {
        let stream = self.dial().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| broken(&error))?;
        // The connection is driven by a task that ends with it: when the reply is read or dropped.
        let driver = self.env.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "an admin connection ended");
            }
        });
        let reply = sender.send_request(request).await;
        let (head, body) = reply.map_err(|error| broken(&error))?.into_parts();
        let body = ProgressStream {
            body,
            buffer: BytesMut::new(),
            _sender: sender,
            _driver: driver,
        };
        if head.status.is_success() {
            return Ok(body);
        }
        Err(refusal(head.status, &whole(body.body).await?))
    }

    async fn dial(&self) -> Result<Stream, AdminError> {
        let socket = self.dir.join(crate::state::SOCKET);
        let dial = timeout(CONNECT, self.env.connect_unix(&socket)).await;
        let stream = dial.map_err(|_| AdminError::Timeout(CONNECT))?;
        stream.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AdminError::NotRunning {
                dir: self.dir.clone(),
            },
            io::ErrorKind::PermissionDenied => AdminError::Denied {
                dir: self.dir.clone(),
            },
            _ => AdminError::Unreachable(error.to_string()),
        })
    }
}

pub(super) fn request(
    method: Method,
    path: &str,
    body: Option<&impl Serialize>,
) -> Result<Request<Full<Bytes>>, AdminError> {
    let unreadable = |error: &dyn std::fmt::Display| AdminError::Unreadable(error.to_string());
    let bytes = match body {
        Some(body) => serde_json::to_vec(body).map_err(|error| unreadable(&error))?,
        None => Vec::new(),
    };
    Request::builder()
        .method(method)
        .uri(path)
        .header(http::header::HOST, "control")
        .body(Full::new(Bytes::from(bytes)))
        .map_err(|error| unreadable(&error))
}

fn broken(error: &hyper::Error) -> AdminError {
    AdminError::Broken(error.to_string())
}

async fn whole(body: Incoming) -> Result<Bytes, AdminError> {
    match Limited::new(body, MAX_REPLY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(AdminError::Broken(error.to_string())),
    }
}

fn refusal(status: StatusCode, body: &[u8]) -> AdminError {
    match serde_json::from_slice(body) {
        Ok(problem) => AdminError::Refused(problem),
        Err(_) => AdminError::Unreadable(format!("status {status}")),
    }
}

/// The progress of a rotation, line by line.
#[derive(Debug)]
pub struct ProgressStream {
    body: Incoming,
    buffer: BytesMut,
    /// Kept, because hyper ends the connection when its sender is gone.
    _sender: http1::SendRequest<Full<Bytes>>,
    _driver: weft_env::JoinHandle<()>,
}

impl ProgressStream {
    /// The next line; `None` after the last one.
    ///
    /// # Errors
    /// [`AdminError::Broken`] if the stream ends early, as it does when the control node stops.
    pub async fn next(&mut self) -> Result<Option<Progress>, AdminError> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line = self.buffer.split_to(end + 1);
                return serde_json::from_slice(&line)
                    .map(Some)
                    .map_err(|error| AdminError::Unreadable(error.to_string()));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(AdminError::Unreadable("a line is too long".to_owned()));
            }
            match self.body.frame().await {
                None if self.buffer.is_empty() => return Ok(None),
                None => return Err(AdminError::Broken("it ended in mid-line".to_owned())),
                Some(Err(error)) => return Err(broken(&error)),
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
