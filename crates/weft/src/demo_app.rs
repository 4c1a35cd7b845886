//! The demo's sample service: an HTTP application and a TCP application in one process, as plain as any
//! that weft is put beside. It knows nothing of the mesh.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use weft_env::{Env, Listener, Stream, Tasks};

use crate::failure::Failure;
use crate::{ready, signals};

/// Most that the TCP application keeps of one connection.
const MAX_ECHO: u64 = 16 * 1024 * 1024;

/// Flags of the hidden subcommand.
#[derive(Debug, clap::Args)]
pub(crate) struct DemoAppArgs {
    /// Name that replies carry
    #[arg(long)]
    name: String,
    /// Address of the HTTP application
    #[arg(long, default_value = "127.0.0.1:0")]
    http: SocketAddr,
    /// Address of the TCP application
    #[arg(long, default_value = "127.0.0.1:0")]
    tcp: SocketAddr,
    /// File to write once it listens
    #[arg(long)]
    ready_file: PathBuf,
}

/// Serves until a signal.
pub(crate) async fn run(args: DemoAppArgs) -> Result<(), Failure> {
    let env = Env::system();
    let stop = signals::stop_token(&env)?;
    let tasks = Tasks::new(&env);
    let listen = async |addr| {
        env.listen(addr).await.map_err(|error| {
            Failure::new(
                format!("listen on {addr}"),
                error,
                "choose an address that is free",
            )
        })
    };
    let http = listen(args.http).await?;
    let tcp = listen(args.tcp).await?;
    let address = |listener: &Listener| {
        listener
            .local_addr()
            .map_err(|error| Failure::because("find the address in use", &error))
    };
    let addresses = json!({
        "pid": std::process::id(),
        "http": address(&http)?,
        "tcp": address(&tcp)?,
    });
    let app = Arc::new(App {
        name: args.name,
        slow: AtomicUsize::new(0),
    });
    let http_tasks = tasks.clone();
    drop(tasks.spawn(async move {
        accept(http, &http_tasks, move |stream| {
            serve_http(stream, Arc::clone(&app))
        })
        .await;
    }));
    let tcp_tasks = tasks.clone();
    drop(tasks.spawn(async move {
        accept(tcp, &tcp_tasks, echo_when_asked_all).await;
    }));
    ready::write(&env, &args.ready_file, &addresses).await?;
    stop.cancelled().await;
    tasks.shutdown(Duration::from_millis(200)).await;
    Ok(())
}

async fn accept<F>(listener: Listener, tasks: &Tasks, serve: impl Fn(Stream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let stop = tasks.token();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(tasks.spawn(serve(stream))),
                Err(error) => tracing::warn!(%error, "accept"),
            }
        }
    }
}

/// The HTTP application.
struct App {
    name: String,
    /// Slow requests under way.
    slow: AtomicUsize,
}

async fn serve_http(stream: Stream, app: Arc<App>) {
    let service = service_fn(move |request| reply(request, Arc::clone(&app)));
    // A client that goes away in mid-request is none of the application's business.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// `/echo` gives the request back; `/slow?ms=N` does so after N milliseconds; `/busy` says how many of
/// those are under way.
async fn reply(
    request: Request<Incoming>,
    app: Arc<App>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    match request.uri().path() {
        "/echo" => {}
        "/slow" => {
            let ms = request
                .uri()
                .query()
                .and_then(|query| query.strip_prefix("ms="))
                .and_then(|ms| ms.parse().ok())
                .unwrap_or(0);
            app.slow.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(ms)).await;
            app.slow.fetch_sub(1, Ordering::Relaxed);
        }
        "/busy" => {
            let slow = app.slow.load(Ordering::Relaxed);
            return Ok(Response::new(Full::from(slow.to_string())));
        }
        _ => {
            let mut response = Response::new(Full::from("no such page\n"));
            *response.status_mut() = StatusCode::NOT_FOUND;
            return Ok(response);
        }
    }
    let headers: serde_json::Map<String, serde_json::Value> = request
        .headers()
        .iter()
        .map(|(name, value)| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            (name.as_str().to_owned(), value.into())
        })
        .collect();
    let body = json!({
        "instance": app.name,
        "method": request.method().as_str(),
        "path": request.uri().path(),
        "headers": headers,
    });
    Ok(Response::builder()
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))
        .expect("a constant header is valid"))
}

/// Reads until the client half-closes, sends everything back, half-closes.
async fn echo_when_asked_all(stream: Stream) {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut received = Vec::new();
    // A client that resets gets no answer.
    if reader
        .take(MAX_ECHO)
        .read_to_end(&mut received)
        .await
        .is_ok()
        && writer.write_all(&received).await.is_ok()
    {
        let _ = writer.shutdown().await;
    }
}
