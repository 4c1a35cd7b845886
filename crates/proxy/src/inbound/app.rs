//! Connections to the own application: few, kept alive, and given back only when they are clean.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_env::{Env, Stream, Tasks};

use super::body::AppBody;
use super::patient::Patient;
use crate::respond::{Fact, Refusal};

/// Idle connections kept. More only help an application that is slower than its callers are many, and
/// hold one of its threads or descriptors each.
const MAX_IDLE: usize = 64;
/// Idle connections older than this are not used again: many servers close theirs after a minute, some
/// after five seconds; the race is handled, but better not run.
const IDLE_LIFE: Duration = Duration::from_secs(30);
/// The application is on this machine or next to it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest response head taken from the application, in bytes, and its number of fields
/// (proxy-semantics §2).
const MAX_HEAD: usize = 60 * 1024;
const MAX_FIELDS: usize = 100;
/// hyper reads at most this far ahead of us.
const READ_AHEAD: usize = 128 * 1024;

/// One HTTP port of the application.
pub(crate) struct App {
    pub(crate) addr: SocketAddr,
    env: Env,
    tasks: Tasks,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

impl App {
    pub(crate) fn new(addr: SocketAddr, env: &Env, tasks: &Tasks) -> Arc<Self> {
        let app = Arc::new(Self {
            addr,
            env: env.clone(),
            tasks: tasks.clone(),
            idle: Mutex::default(),
        });
        drop(tasks.spawn(close_aged(Arc::downgrade(&app), tasks.token())));
        app
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Connection, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that was used before and is open, the one used last; those that are not are thrown
    /// away.
    pub(crate) fn reuse(&self) -> Option<Connection> {
        let now = Instant::now();
        let mut idle = self.idle();
        while let Some((connection, since)) = idle.pop() {
            if now.duration_since(since) > IDLE_LIFE {
                // Those below are older still.
                idle.clear();
                return None;
            }
            if connection.sender.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Opens a plain TCP connection.
    pub(crate) async fn connect(&self) -> Result<Stream, Refusal> {
        let addr = self.addr;
        match timeout(CONNECT_TIMEOUT, self.env.connect(addr)).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => Err(silent(addr)),
            Ok(Err(error)) => Err(Refusal::new(
                Fact::AppRefused,
                format!("the application does not accept connections: {error}"),
            )),
            Err(_) => Err(silent(addr)),
        }
    }

    /// Opens a new connection for requests.
    pub(crate) async fn open(&self) -> Result<Connection, Refusal> {
        let stream = self.connect().await?;
        let (sender, connection) = http1::Builder::new()
            .max_headers(MAX_FIELDS)
            .max_header_size(MAX_HEAD)
            .max_buf_size(READ_AHEAD)
            .handshake(TokioIo::new(Patient::new(stream)))
            .await
            .map_err(|error| Refusal::new(Fact::AppReset, said(&error)))?;
        let task = self.tasks.spawn(async move {
            // What happens to a request is told to whoever waits for its response.
            let _ = connection.await;
        });
        Ok(Connection {
            sender,
            task: AbortOnDrop(task.abort_handle()),
        })
    }

    /// Keeps a connection whose exchange is over for the next one, if both ends want to.
    pub(crate) async fn give_back(&self, mut connection: Connection) {
        // Resolves once hyper has seen the end of the response, in its own task.
        if connection.sender.ready().await.is_err() {
            return;
        }
        let now = Instant::now();
        let mut idle = self.idle();
        if idle.len() < MAX_IDLE {
            idle.push((connection, now));
        }
    }
}

/// Closes idle connections in time: those that a busier time has left behind lie at the bottom of the stack, where no
/// request comes to them, and after the last request none comes at all.
async fn close_aged(app: Weak<App>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(IDLE_LIFE / 2) => {}
        }
        let Some(app) = app.upgrade() else {
            return;
        };
        let now = Instant::now();
        let mut idle = app.idle();
        let aged = idle.partition_point(|(_, since)| now.duration_since(*since) > IDLE_LIFE);
        idle.drain(..aged);
    }
}

fn silent(addr: SocketAddr) -> Refusal {
    Refusal::new(
        Fact::AppConnectTimeout,
        format!(
            "the application at {addr} did not answer a connection attempt within {CONNECT_TIMEOUT:?}"
        ),
    )
}

/// hyper's reason in words, without its type names.
pub(crate) fn said(error: &hyper::Error) -> String {
    let mut text = format!("the application broke off: {error}");
    if let Some(cause) = std::error::Error::source(error) {
        text.push_str(&format!(" ({cause})"));
    }
    text
}

/// A connection to the application. Dropped in the middle of an exchange, it is closed.
pub(crate) struct Connection {
    sender: SendRequest<AppBody>,
    task: AbortOnDrop,
}

/// Ends a task with its owner.
#[derive(Debug)]
pub(crate) struct AbortOnDrop(pub(crate) AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a request got no response.
pub(crate) struct Failed {
    pub(crate) refusal: Refusal,
    /// The request, if none of it was sent.
    pub(crate) unsent: Option<Box<Request<AppBody>>>,
}

impl Connection {
    /// Sends a request and waits for the head of its response.
    pub(crate) async fn send(
        &mut self,
        request: Request<AppBody>,
    ) -> Result<Response<Incoming>, Failed> {
        debug_assert!(!self.task.0.is_finished() || !self.sender.is_ready());
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut error| {
                let unsent = error.take_message().map(Box::new);
                let error = error.into_error();
                let fact = if error.is_parse() || error.is_parse_too_large() {
                    Fact::AppMalformed
                } else {
                    Fact::AppReset
                };
                Failed {
                    refusal: Refusal::new(fact, said(&error)),
                    unsent,
                }
            })
    }
}
