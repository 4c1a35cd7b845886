//! What the mesh asks of the own application: who may, and passing it on.
//!
//! A request meets, in this order: the address check (`mod`), policy (`mod`), the application (`http`, or
//! `tcp` for CONNECT). Every answer of weft's own goes through `crate::respond`.

pub(crate) mod app;
pub(crate) mod body;
mod caller;
mod http;
mod patient;
mod tcp;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::{Method, Request, Uri};
use bytes::Bytes;
use weft_certs::PeerIdentity;
use weft_env::BoxFuture;
use weft_policy::{RequestHead, Verdict, authorize};
use weft_resources::ServiceName;
use weft_telemetry::Protocol;
use weft_transport::{Handler, Negotiated, RecvStream, SendStream, ServerRequest};

use crate::config::AppPort;
use crate::headers::expects_continue;
use crate::node::Node;
use crate::record::{Opening, Record};
use crate::request_id;
use crate::respond::{Fact, Refusal};
use crate::running::Running;
use app::App;
use caller::Callers;

/// The receiving half of the sidecar.
pub(crate) struct Inbound {
    node: Arc<Node>,
    /// By what callers write: `service.namespace:port`.
    ports: BTreeMap<Arc<str>, Port>,
    callers: Callers,
}

/// One port of the application.
struct Port {
    number: u16,
    carried: Protocol,
    authority: Arc<str>,
    app: Arc<App>,
}

/// A request of the mesh, from the moment on that its head is known.
struct Call {
    caller: PeerIdentity,
    negotiated: Negotiated,
    /// Where this node was dialled, over TCP.
    local: Option<SocketAddr>,
    request: Request<()>,
    send: SendStream,
    recv: RecvStream,
}

impl Handler for Inbound {
    fn handle(&self, request: ServerRequest) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // The endpoint lets nobody in without an SVID.
            let Some(caller) = request.peer else { return };
            self.answer(Call {
                caller,
                negotiated: request.negotiated,
                local: request.local,
                request: request.request,
                send: request.send,
                recv: request.recv,
            })
            .await;
        })
    }
}

impl Inbound {
    pub(crate) fn new(node: Arc<Node>, ports: &[AppPort]) -> Self {
        let port = |port: &AppPort| {
            let authority: Arc<str> = format!("{}:{}", node.service, port.port).into();
            let made = Port {
                number: port.port,
                carried: protocol(port.protocol),
                authority: Arc::clone(&authority),
                app: App::new(port.addr, &node.env, &node.apps),
            };
            (authority, made)
        };
        Self {
            ports: ports.iter().map(port).collect(),
            callers: Callers::new(&node),
            node,
        }
    }

    /// Answers one request, from its head to its end.
    async fn answer(&self, call: Call) {
        let Call {
            caller,
            negotiated,
            local,
            mut request,
            mut send,
            recv,
        } = call;
        let node = &*self.node;
        let running = node.running.load_full();
        let tunnel = *request.method() == Method::CONNECT;
        let request_id = request_id::ensure(request.headers_mut(), || node.dice.id());
        let mut record = Record::open(
            Opening {
                telemetry: &node.telemetry,
                face: &node.inbound,
                protocol: if tunnel {
                    Protocol::Tcp
                } else {
                    Protocol::Http
                },
                request_id,
                method: request.method().clone(),
                target: request.uri().clone(),
                revision: running.as_ref().map_or(0, |running| running.revision()),
            },
            &node.nothing,
        );
        record.negotiated = negotiated;
        record.carrier = Some(send.carrier());
        let caller = self.callers.get(&caller);
        record.peer = Arc::clone(&caller.id_text);
        record.edge = Some(caller.edge(tunnel).clone());
        let admitted = self.admit(running.as_deref(), &caller.id, &request, local, &mut record);
        match admitted {
            Err(refusal) => refuse(&mut send, recv, &mut record, &refusal).await,
            Ok(admitted) if tunnel => {
                // In a box of its own: the future of every request is as long as its longest way.
                Box::pin(tcp::tunnel(&admitted.app, send, recv, record)).await;
            }
            Ok(admitted) => {
                if expects_continue(request.headers()) {
                    // Only now: who may not send this needs not send its content. A caller that has left shows later.
                    let _ = send.send_continue().await;
                }
                let forward = http::Forward {
                    node: &self.node,
                    app: &admitted.app,
                    caller: &caller,
                    path: admitted.path,
                };
                forward.run(request, send, recv, record).await;
            }
        }
    }

    /// Whether the request is for this service, and policy lets this caller make it.
    fn admit(
        &self,
        running: Option<&Running>,
        caller: &weft_certs::SpiffeId,
        request: &Request<()>,
        local: Option<SocketAddr>,
        record: &mut Record,
    ) -> Result<Admitted, Refusal> {
        let running = running.ok_or_else(|| {
            Refusal::new(
                Fact::NotReady,
                "this sidecar has no snapshot from a control node yet, so nobody may call it",
            )
        })?;
        let tunnel = *request.method() == Method::CONNECT;
        let port = self.port(request.uri(), tunnel, local, record)?;
        let snapshot = &running.snapshot;
        let (home, own) = (self.node.id.trust_domain(), &self.node.service);
        if tunnel {
            let verdict = authorize(snapshot, home, own, port.number, caller, None);
            self.allowed(&verdict, caller, "", record)?;
            let app = Arc::clone(&port.app);
            return Ok(Admitted { app, path: None });
        }
        let (method, uri) = (request.method(), request.uri());
        let head = RequestHead::new(method, uri.path(), uri.query(), request.headers())
            .map_err(|error| Refusal::new(Fact::BadRequest, error.to_string()))?;
        let verdict = authorize(snapshot, home, own, port.number, caller, Some(&head));
        self.allowed(&verdict, caller, head.path(), record)?;
        Ok(Admitted {
            app: Arc::clone(&port.app),
            path: head.rewritten_path().map(str::to_owned),
        })
    }

    /// The application's port that the authority names. This sidecar answers for its own service only.
    fn port(
        &self,
        uri: &Uri,
        tunnel: bool,
        local: Option<SocketAddr>,
        record: &mut Record,
    ) -> Result<&Port, Refusal> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let wanted = if tunnel {
            Protocol::Tcp
        } else {
            Protocol::Http
        };
        let own = &self.node.service;
        let Some(port) = self
            .ports
            .get(authority)
            .or_else(|| self.spelled(authority))
            .or_else(|| self.at_address(authority, local))
        else {
            record.authority = authority.into();
            return Err(self.not_here(authority));
        };
        record.authority = Arc::clone(&port.authority);
        if port.carried == wanted {
            return Ok(port);
        }
        let (number, wanted) = (port.number, wanted.as_str());
        Err(Refusal::new(
            Fact::NoSuchPort,
            format!("port {number} of service '{own}' is not {wanted}"),
        ))
    }

    /// The port behind another spelling of its authority, which peers do not use but may.
    fn spelled(&self, authority: &str) -> Option<&Port> {
        let own = &self.node.service;
        match ServiceName::parse_host(authority, own.namespace()) {
            Ok((service, Some(port))) if service == *own => {
                self.ports.get(format!("{service}:{port}").as_str())
            }
            _ => None,
        }
    }

    /// The port of `ip:port`, as HBONE names it: the IP must be the one that was dialled, or anybody could have
    /// this node connect to anything.
    fn at_address(&self, authority: &str, local: Option<SocketAddr>) -> Option<&Port> {
        let named: SocketAddr = authority.parse().ok()?;
        let here = local?.ip().to_canonical() == named.ip().to_canonical();
        let port = format!("{}:{}", self.node.service, named.port());
        here.then(|| self.ports.get(port.as_str())).flatten()
    }

    fn not_here(&self, authority: &str) -> Refusal {
        let own = &self.node.service;
        match ServiceName::parse_host(authority, own.namespace()) {
            Ok((service, Some(port))) if service == *own => Refusal::new(
                Fact::NoSuchPort,
                format!("service '{own}' has no port {port} at this instance"),
            ),
            _ => Refusal::new(
                Fact::Misdirected,
                format!("'{authority}' is not this node, which is {own}"),
            ),
        }
    }

    fn allowed(
        &self,
        verdict: &Verdict,
        caller: &weft_certs::SpiffeId,
        path: &str,
        record: &mut Record,
    ) -> Result<(), Refusal> {
        record.rule = Arc::clone(&verdict.rule);
        if verdict.allowed {
            return Ok(());
        }
        let (service, rule) = (&self.node.service, &verdict.rule);
        let what = if path.is_empty() {
            format!("service '{service}'")
        } else {
            format!("{path} of service '{service}'")
        };
        Err(Refusal::new(
            Fact::Denied,
            format!("{caller} may not call {what} (rule {rule})"),
        )
        .by(rule))
    }
}

struct Admitted {
    app: Arc<App>,
    /// The path to forward, where policy decided on another spelling than came.
    path: Option<String>,
}

/// Sends an answer of weft's own, and tells the caller not to send the rest of its request.
async fn refuse(
    send: &mut SendStream,
    mut recv: RecvStream,
    record: &mut Record,
    refusal: &Refusal,
) {
    record.refused(refusal);
    let (mut response, text) = record.speaker().answer(refusal);
    // Of HTTP/1.1 only (RFC 9114 §4.2).
    response.headers_mut().remove(::http::header::CONNECTION);
    // A caller that has left needs no answer.
    let _ = send
        .send_response_with(&response, Bytes::from(text), true)
        .await;
    recv.stop(weft_transport::Code::NO_ERROR);
}

fn protocol(carried: weft_wire::Protocol) -> Protocol {
    match carried {
        weft_wire::Protocol::Http => Protocol::Http,
        weft_wire::Protocol::Tcp => Protocol::Tcp,
    }
}
