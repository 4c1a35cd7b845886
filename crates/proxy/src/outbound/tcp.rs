//! Byte streams of the own application: by CONNECT to the HTTP listener, or on a local port of their own.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper_util::rt::TokioIo;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use weft_env::{Listener, Stream};
use weft_policy::PortProtocol;
use weft_policy::retry::{self, Failure, RetryDecision, RetryPolicy};
use weft_resources::ServiceName;
use weft_telemetry::Protocol;
use weft_transport::{RecvStream, SendStream};

use super::content::Content;
use super::last_call::LastCall;
use super::outcome::{Missed, app_was_not_reached, blame, broken, no_endpoint, unsent};
use super::reply::Reply;
use super::request::{edge, not_ready, refused, upstream};
use super::unparsed::Wire;
use crate::node::Node;
use crate::record::{Opening, Record};
use crate::respond::{Fact, PROXY_STATUS, Refusal};
use crate::running::{Instance, Pending, Port, Running};
use crate::tunnel::{self, Counters};
use crate::{accept, request_id, target};

/// The longest that a tunnel may take to stand, with all attempts. No route says anything about it.
const PATIENCE: Duration = Duration::from_secs(10);

/// Facts about the caller (W3C Baggage), as HBONE has them.
const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// A tunnel that stands.
struct Tunnel {
    send: SendStream,
    recv: RecvStream,
    _pending: Pending,
}

/// A CONNECT of the application to the HTTP listener.
pub(super) async fn connect(
    node: &Arc<Node>,
    running: &Running,
    request: Request<Content>,
    mut record: Record,
    last_call: &LastCall,
) -> Response<Reply> {
    let named = target::resolve(
        request.method(),
        request.uri(),
        request.headers(),
        node.service.namespace(),
    );
    let opened = match named {
        Ok((service, port)) => {
            let opened = pin!(open(node, running, &service, port, None, &mut record));
            last_call.before(opened).await.flatten()
        }
        Err(refusal) => Err(refusal),
    };
    let tunnel = match opened {
        Ok(tunnel) => tunnel,
        Err(refusal) => return refused(record, &refusal),
    };
    drop(node.traffic.spawn(async move {
        // A client that does not wait for the answer drops the tunnel, which resets it.
        if let Ok(upgraded) = hyper::upgrade::on(request).await
            && let Ok(parts) = upgraded.downcast::<TokioIo<Wire>>()
        {
            carry(
                parts.io.into_inner().into_stream(),
                parts.read_buf,
                tunnel,
                record,
            )
            .await;
        }
    }));
    Response::new(Reply::Text(None))
}

/// Serves a local port whose connections all go to one service, until `stop`.
pub(crate) async fn serve(
    node: Arc<Node>,
    stop: CancellationToken,
    listener: Arc<Listener>,
    backend: impl Fn() -> (ServiceName, u16),
) {
    let places = Arc::clone(&node.tcp_places);
    let traffic = node.traffic.clone();
    accept::each(
        &listener,
        node.doors.gate(),
        &stop,
        &traffic,
        &places,
        "tcp",
        |stream, place| {
            let (node, (service, port)) = (Arc::clone(&node), backend());
            async move {
                accepted(&node, stream, &service, port).await;
                drop(place);
            }
        },
    )
    .await;
}

async fn accepted(node: &Arc<Node>, stream: Stream, service: &ServiceName, port: u16) {
    let running = node.running.load_full();
    let id = HeaderValue::try_from(format!("{:032x}", node.dice.id()))
        .expect("hexadecimal digits are visible ASCII");
    let mut record = Record::open(
        Opening {
            telemetry: &node.telemetry,
            face: &node.outbound,
            protocol: Protocol::Tcp,
            request_id: id,
            method: Method::CONNECT,
            target: Uri::default(),
            revision: running.as_ref().map_or(0, |running| running.revision()),
        },
        &node.nothing,
    );
    let opened = match &running {
        Some(running) => {
            open(
                node,
                running,
                service,
                port,
                stream.peer_addr(),
                &mut record,
            )
            .await
        }
        None => Err(not_ready()),
    };
    match opened {
        Ok(tunnel) => carry(stream, Bytes::new(), tunnel, record).await,
        Err(refusal) => {
            tracing::info!(request_id = record.request_id(), backend = %service, reason = %refusal.details, "connection refused");
            record.refused(&refusal);
            stream.reset();
        }
    }
}

async fn carry(stream: Stream, early: Bytes, tunnel: Tunnel, mut record: Record) {
    let Tunnel {
        send,
        recv,
        _pending,
    } = tunnel;
    record.answered(StatusCode::OK);
    let sent = Arc::clone(&record.sent);
    let count = Counters {
        to_mesh: &sent,
        to_local: &record.received,
    };
    match tunnel::carry(stream, early, send, recv, count).await {
        Ok(()) => record.ended(),
        Err(broken) => record.broke_off(broken.to_string()),
    }
}

/// Makes a tunnel to an instance of the service, for a connection `from` there, if that is known.
async fn open(
    node: &Arc<Node>,
    running: &Running,
    service: &ServiceName,
    number: u16,
    from: Option<SocketAddr>,
    record: &mut Record,
) -> Result<Tunnel, Refusal> {
    record.authority = format!("{service}:{number}").into();
    let (upstream, port) = upstream(running, service, number)?;
    if port.protocol != PortProtocol::Tcp {
        return Err(Refusal::new(
            Fact::NoSuchPort,
            format!(
                "port {number} of service '{service}' is HTTP: send it requests (http_proxy, or by Host), not CONNECT"
            ),
        ));
    }
    record.edge = Some(edge(node, service, upstream, Protocol::Tcp));
    record.authority = Arc::clone(&port.name);
    record.tcp_opened();
    let request = request(node, port, from, record);
    let attempts = attempts(node, service, port, &request, record);
    timeout(PATIENCE, attempts).await.unwrap_or_else(|_| {
        Err(Refusal::new(
            Fact::Timeout,
            format!("no connection to service '{service}' within {PATIENCE:?}"),
        ))
    })
}

async fn attempts(
    node: &Arc<Node>,
    service: &ServiceName,
    port: &Port,
    request: &Request<()>,
    record: &mut Record,
) -> Result<Tunnel, Refusal> {
    let policy = RetryPolicy::default();
    let mut tried: Vec<Arc<Instance>> = Vec::new();
    let mut last = None;
    loop {
        let picked = port.pick(&tried, false, node.uptime(), node.dice.pair());
        let Some(instance) = picked else {
            return Err(last.unwrap_or_else(|| no_endpoint(service)));
        };
        record.attempts += 1;
        record.peer = Arc::clone(&instance.id);
        let missed = match attempt(node, service, &instance, request, record).await {
            Ok(tunnel) => return Ok(tunnel),
            Err(missed) => missed,
        };
        // Nothing of the stream was sent yet; that it may have been opened is no processing.
        let retry = retry::decide(&policy, record.attempts, missed.failure, false, true);
        if retry == RetryDecision::GiveUp {
            return Err(missed.refusal);
        }
        tried.push(instance);
        last = Some(missed.refusal);
    }
}

/// What HBONE sends, and weft's id of the request. Who calls is in the certificate; these say more about it to whom it
/// may interest.
fn request(node: &Node, port: &Port, from: Option<SocketAddr>, record: &Record) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = Method::CONNECT;
    *request.version_mut() = Version::HTTP_3;
    *request.uri_mut() = Uri::from(port.authority.clone());
    let id = HeaderValue::try_from(record.request_id()).expect("ids are visible ASCII");
    let headers = request.headers_mut();
    headers.insert(request_id::HEADER, id);
    headers.insert(BAGGAGE, node.baggage.clone());
    if let Some(from) = from {
        // RFC 7239 §4: an address with a port is quoted.
        let forwarded = HeaderValue::try_from(format!("for=\"{from}\""));
        headers.insert(
            header::FORWARDED,
            forwarded.expect("addresses are visible ASCII"),
        );
    }
    request
}

async fn attempt(
    node: &Arc<Node>,
    service: &ServiceName,
    instance: &Arc<Instance>,
    request: &Request<()>,
    record: &mut Record,
) -> Result<Tunnel, Missed> {
    let pending = instance.begin();
    let opened = node
        .pool
        .request_with(&instance.target, request, Bytes::new(), false)
        .await;
    let mut exchange = opened.map_err(|error| {
        let missed = unsent(service, instance, error);
        blame(node, instance, missed.failure);
        missed
    })?;
    record.carried(&exchange);
    let began = tokio::time::Instant::now();
    let response = exchange.recv.response().await.map_err(|error| {
        let missed = broken(service, instance, &error);
        blame(node, instance, missed.failure);
        missed
    })?;
    if response.status().is_success() {
        instance.answered(began.elapsed(), node.uptime());
        return Ok(Tunnel {
            send: exchange.send,
            recv: exchange.recv,
            _pending: pending,
        });
    }
    Err(not_connected(node, service, instance, &response))
}

/// The other sidecar said no. Its reason is this one's.
fn not_connected(
    node: &Node,
    service: &ServiceName,
    instance: &Instance,
    response: &Response<()>,
) -> Missed {
    let said = response
        .headers()
        .get(PROXY_STATUS)
        .map_or("no reason given".into(), |value| {
            String::from_utf8_lossy(value.as_bytes())
        });
    let details = format!("'{service}' answered {}: {said}", response.status());
    if app_was_not_reached(response.headers(), service) {
        instance.failed(node.uptime());
        let refusal = Refusal::new(Fact::ConnectFailed, details);
        return Missed::new(Failure::ConnectFailed, refusal);
    }
    let fact = match response.status() {
        StatusCode::FORBIDDEN => Fact::Denied,
        StatusCode::NOT_FOUND => Fact::NoSuchPort,
        _ => Fact::UpstreamReset,
    };
    let status = response.status().as_u16();
    Missed::new(Failure::Status(status), Refusal::new(fact, details))
}
