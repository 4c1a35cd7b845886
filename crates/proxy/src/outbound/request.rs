//! One HTTP request of the own application: what it is for, what may be passed on, which rule it follows.

use std::pin::{Pin, pin};
use std::sync::Arc;

use http::header::{self, HeaderMap};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::time::{Instant, timeout_at};
use weft_env::mutants::{Mutant, broken};
use weft_policy::{RequestHead, RouteDecision, RouteError, choose_backend, route};
use weft_resources::ServiceName;
use weft_telemetry::{Edge, EdgeKey, Party, Protocol, Reporter};

use super::attempt::Transaction;
use super::content::Content;
use super::last_call::LastCall;
use super::outcome::Answer;
use super::reply::{Arriving, Reply};
use super::tcp;
use super::upload::Upload;
use crate::headers::{append_via, content_length, foreign_coding, strip_hop_by_hop};
use crate::node::Node;
use crate::record::{Opening, Record};
use crate::respond::{Fact, PROXY_STATUS, Refusal, shown};
use crate::running::{Running, Upstream};
use crate::{request_id, target, xfcc};

/// Answers one request, from its head to the head of its response.
pub(super) async fn answer(
    node: Arc<Node>,
    request: Request<Content>,
    last_call: &LastCall,
) -> Response<Reply> {
    let running = node.running.load_full();
    let (mut parts, body) = request.into_parts();
    let request_id = request_id::ensure(&mut parts.headers, || node.dice.id());
    let tunnel = parts.method == Method::CONNECT;
    let mut record = Record::open(
        Opening {
            telemetry: &node.telemetry,
            face: &node.outbound,
            protocol: if tunnel {
                Protocol::Tcp
            } else {
                Protocol::Http
            },
            request_id,
            method: parts.method.clone(),
            target: parts.uri.clone(),
            revision: running.as_ref().map_or(0, |running| running.revision()),
        },
        &node.nothing,
    );
    let Some(running) = running else {
        return refused(record, &not_ready());
    };
    if tunnel {
        let request = Request::from_parts(parts, body);
        // In a box of its own: what is rare must not make the future of every request longer.
        return Box::pin(tcp::connect(&node, &running, request, record, last_call)).await;
    }
    let forwarded = {
        let forwarding = pin!(forward(&node, &running, parts, body, &mut record));
        last_call.before(forwarding).await.flatten()
    };
    match forwarded {
        Ok(forwarded) => forwarded.respond(&node, record),
        Err(refusal) if refusal.fact == Fact::UpstreamReset && broken(Mutant::DropsInSilence) => {
            std::future::pending().await
        }
        Err(refusal) => refused(record, &refusal),
    }
}

/// Nothing is decided without a snapshot.
pub(super) fn not_ready() -> Refusal {
    Refusal::new(
        Fact::NotReady,
        "this sidecar has no snapshot from a control node yet; /readyz on its metrics port says why",
    )
}

/// The answer of weft's own.
pub(super) fn refused(mut record: Record, refusal: &Refusal) -> Response<Reply> {
    record.refused(refusal);
    let (head, text) = record.speaker().answer(refusal);
    head.map(|()| Reply::text(text))
}

/// A response whose head is here, and what decided about it.
struct Forwarded {
    answer: Answer,
    decision: RouteDecision,
    head: bool,
    deadline: Option<Instant>,
}

async fn forward(
    node: &Arc<Node>,
    running: &Running,
    mut parts: Parts,
    body: Content,
    record: &mut Record,
) -> Result<Forwarded, Refusal> {
    understood(&parts.headers)?;
    let plan = plan(node, running, &parts, record)?;
    let (upstream, port) = upstream(running, &plan.service, plan.port)?;
    record.edge = Some(edge(node, &plan.service, upstream, Protocol::Http));
    record.authority = Arc::clone(&port.name);
    let deadline = plan.decision.timeout.map(|limit| record.started() + limit);
    let mut upload = {
        let taken = pin!(Upload::take(body, &parts.headers));
        let taken = within(deadline, taken, &plan.decision).await?;
        taken.map_err(|error| {
            Refusal::new(
                Fact::BadRequest,
                format!("the request's body broke off: {error}"),
            )
        })?
    };
    sanitise(node, &mut parts.headers, &plan.decision)?;
    if matches!(upload, Upload::Expected(_)) {
        // The called side says when to send it.
        let expected = HeaderValue::from_static("100-continue");
        parts.headers.insert(header::EXPECT, expected);
    }
    parts.uri = mesh_uri(&parts.uri, &port.authority, plan.path.as_deref())?;
    let head = parts.method == Method::HEAD;
    let transaction = Transaction {
        node,
        service: &plan.service,
        port,
        decision: &plan.decision,
    };
    let request = Request::from_parts(parts, ());
    let answer = {
        let attempts = pin!(transaction.run(&request, &mut upload, record));
        within(deadline, attempts, &plan.decision).await??
    };
    Ok(Forwarded {
        answer,
        decision: plan.decision,
        head,
        deadline,
    })
}

/// Waits no longer than the route allows for the whole transaction.
async fn within<F: Future>(
    deadline: Option<Instant>,
    future: Pin<&mut F>,
    decision: &RouteDecision,
) -> Result<F::Output, Refusal> {
    let (Some(deadline), Some(limit)) = (deadline, decision.timeout) else {
        return Ok(future.await);
    };
    timeout_at(deadline, future).await.map_err(|_| {
        Refusal::new(
            Fact::Timeout,
            format!(
                "there was no response within {limit:?}, which {} allows",
                decision.rule
            ),
        )
        .by(&decision.rule)
    })
}

/// Where the request goes.
struct Plan {
    decision: RouteDecision,
    service: ServiceName,
    port: u16,
    /// The path to forward, where the rule was chosen by another spelling than came.
    path: Option<String>,
}

fn plan(
    node: &Node,
    running: &Running,
    parts: &Parts,
    record: &mut Record,
) -> Result<Plan, Refusal> {
    let namespace = node.service.namespace();
    let (named, port) = target::resolve(&parts.method, &parts.uri, &parts.headers, namespace)?;
    let head = RequestHead::of(parts)
        .map_err(|error| Refusal::new(Fact::BadRequest, error.to_string()))?;
    let snapshot = &running.snapshot;
    let decision = route(snapshot, namespace, &named, port, &head).map_err(|error| {
        record.authority = format!("{named}:{port}").into();
        route_refusal(&error)
    })?;
    record.rule = Arc::clone(&decision.rule);
    let (service, port) = choose_backend(snapshot, &decision, node.dice.draw())
        .map_err(|error| route_refusal(&error).by(&decision.rule))?;
    Ok(Plan {
        path: head.rewritten_path().map(str::to_owned),
        decision,
        service,
        port,
    })
}

fn route_refusal(error: &RouteError) -> Refusal {
    let fact = match error {
        RouteError::NoSuchService(_) => Fact::NoSuchService,
        RouteError::NoSuchPort { .. } | RouteError::NotHttp { .. } => Fact::NoSuchPort,
        RouteError::NoMatch(_) => Fact::NoRoute,
        RouteError::NoBackends(_) | RouteError::InvalidBackend { .. } => Fact::NoBackend,
    };
    Refusal::new(fact, error.to_string())
}

/// A port of a service, whoever serves it now.
pub(super) fn upstream<'r>(
    running: &'r Running,
    service: &ServiceName,
    port: u16,
) -> Result<(&'r Upstream, &'r crate::running::Port), Refusal> {
    let upstream = running.upstream(service).ok_or_else(|| {
        Refusal::new(
            Fact::NoSuchService,
            format!("no service '{service}' is known in the mesh"),
        )
    })?;
    match upstream.port(port) {
        Some(port) => Ok((upstream, port)),
        None if running.snapshot.port_protocol(service, port).is_none() => Err(Refusal::new(
            Fact::NoSuchPort,
            format!("service '{service}' has no port {port}"),
        )),
        None => Err(Refusal::new(
            Fact::NoEndpoint,
            format!("no instance of service '{service}' with port {port} is there now"),
        )),
    }
}

/// Where traffic to a service is counted, resolved once.
pub(super) fn edge(
    node: &Node,
    service: &ServiceName,
    upstream: &Upstream,
    protocol: Protocol,
) -> Edge {
    let slot = match protocol {
        Protocol::Http => &upstream.edges().http,
        Protocol::Tcp => &upstream.edges().tcp,
    };
    let made = slot.get_or_init(|| {
        let id = node.service_id(service);
        node.telemetry.edge(&EdgeKey {
            reporter: Reporter::Source,
            source: node.party.clone(),
            destination: Party::service(service.namespace(), service.name(), &id),
            protocol,
        })
    });
    made.clone()
}

/// Refuses content that would arrive as something else (RFC 9112 §6.1).
fn understood(headers: &HeaderMap) -> Result<(), Refusal> {
    match foreign_coding(headers) {
        None => Ok(()),
        Some(codings) => Err(Refusal::new(
            Fact::UnknownCoding,
            format!(
                "weft does not take the transfer coding '{codings}': send the content with \"chunked\" alone, and say how it is coded in Content-Encoding"
            ),
        )),
    }
}

/// Leaves what may pass the hop, and adds what this node adds.
fn sanitise(node: &Node, headers: &mut HeaderMap, decision: &RouteDecision) -> Result<(), Refusal> {
    strip_hop_by_hop(headers);
    headers.remove(header::HOST);
    headers.remove(header::EXPECT);
    if !broken(Mutant::BelievesTheCaller) {
        headers.remove(xfcc::HEADER);
    }
    if !append_via(headers, &node.outbound.via) {
        let details = "the request has been through this sidecar several times already";
        return Err(Refusal::new(Fact::Loop, details));
    }
    decision.request_headers.apply(headers);
    // A filter of a route decides about the application's fields, not about what makes up the message.
    headers.remove(header::HOST);
    Ok(())
}

/// The target in the mesh: canonical authority, path and query as they came or as they were decided on.
fn mesh_uri(uri: &Uri, authority: &Authority, path: Option<&str>) -> Result<Uri, Refusal> {
    let path = match path {
        None => uri.path_and_query().cloned(),
        Some(path) => {
            let text = match uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path.to_owned(),
            };
            PathAndQuery::try_from(text).ok()
        }
    };
    let mut made = http::uri::Parts::default();
    made.scheme = Some(Scheme::HTTP);
    made.authority = Some(authority.clone());
    made.path_and_query = Some(path.unwrap_or_else(|| PathAndQuery::from_static("/")));
    Uri::from_parts(made).map_err(|error| {
        Refusal::new(
            Fact::BadRequest,
            format!("the target is malformed: {error}"),
        )
    })
}

impl Forwarded {
    fn respond(self, node: &Arc<Node>, mut record: Record) -> Response<Reply> {
        let Answer {
            response,
            recv,
            instance,
            pending,
            upload,
            attempt_deadline,
        } = self.answer;
        let (mut parts, ()) = response.into_parts();
        record.answered(parts.status);
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(header::TE);
        self.decision.response_headers.apply(&mut parts.headers);
        if let Some(said) = parts.headers.get(PROXY_STATUS) {
            record.answered_for(shown(said.as_bytes()));
            let status = parts.status;
            record.speaker().append_received(&mut parts.headers, status);
        }
        parts.version = http::Version::HTTP_11;
        let without_body = matches!(
            parts.status,
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED
        );
        let deadline = match (self.deadline, attempt_deadline) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        let arriving = Arriving {
            length: content_length(&parts.headers),
            node: Arc::clone(node),
            recv,
            record,
            instance,
            pending,
            upload,
            deadline,
        };
        let body = Reply::arriving(arriving, !(self.head || without_body));
        Response::from_parts(parts, body)
    }
}
