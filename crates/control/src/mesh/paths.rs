//! The requests of the control protocol, apart from how they travel.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{Method, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;
use weft_ca::audit::Event;
use weft_certs::PeerIdentity;
use weft_wire::{
    BundleResponse, CONTROL_AUTHORITY, JoinRequest, JoinResponse, PATH_BUNDLE, PATH_CHALLENGE,
    PATH_DELEGATE, PATH_DELEGATE_FOLLOW, PATH_DELEGATE_REPORT, PATH_JOIN, PATH_JWT, PATH_RENEW,
    PATH_SYNC,
};

use crate::delegate;
use crate::issue;
use crate::node::Node;
use crate::problem::Reject;
use crate::push::{Ending, Inlet, Messages, Outlet, Session};
use crate::registry::{Arrival, Epoch};
use crate::time::{unix_ms, unix_s};

/// What a request is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Purpose {
    Join,
    Challenge,
    Bundle,
    Renew(PeerIdentity),
    Jwt(PeerIdentity),
    Sync(PeerIdentity),
    /// A delegate that is to be certified: it has a token, or the certificate of its connection.
    Delegate(Option<PeerIdentity>),
    Report(PeerIdentity),
    Follow(PeerIdentity),
}

/// Finds out what a request is for. Only joining, and what it takes, is open to those without a certificate, and whom the
/// mesh trusts, which is no secret.
pub(super) fn purpose(
    method: &Method,
    uri: &Uri,
    peer: Option<PeerIdentity>,
) -> Result<Purpose, Reject> {
    let authority = uri.authority().map(http::uri::Authority::as_str);
    if method != Method::POST || authority != Some(CONTROL_AUTHORITY) {
        return Err(no_such_path());
    }
    match (uri.path(), peer) {
        (PATH_JOIN, _) => Ok(Purpose::Join),
        (PATH_CHALLENGE, _) => Ok(Purpose::Challenge),
        (PATH_BUNDLE, _) => Ok(Purpose::Bundle),
        (PATH_RENEW, Some(peer)) => Ok(Purpose::Renew(peer)),
        (PATH_JWT, Some(peer)) => Ok(Purpose::Jwt(peer)),
        (PATH_SYNC, Some(peer)) => Ok(Purpose::Sync(peer)),
        (PATH_DELEGATE, peer) => Ok(Purpose::Delegate(peer)),
        (PATH_DELEGATE_REPORT, Some(peer)) => Ok(Purpose::Report(peer)),
        (PATH_DELEGATE_FOLLOW, Some(peer)) => Ok(Purpose::Follow(peer)),
        (PATH_RENEW | PATH_JWT | PATH_SYNC | PATH_DELEGATE_REPORT | PATH_DELEGATE_FOLLOW, None) => {
            Err(Reject::new(
                StatusCode::UNAUTHORIZED,
                "no_certificate",
                "this needs a client certificate; join the mesh first",
            ))
        }
        _ => Err(no_such_path()),
    }
}

/// What a delegate does not do is left to the control node; and it serves nobody beyond its site.
pub(super) fn allowed(node: &Node, purpose: Purpose) -> Result<Purpose, Reject> {
    let Some(site) = &node.settings.site else {
        return Ok(purpose);
    };
    match &purpose {
        Purpose::Jwt(_) => Err(Reject::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "no_token_key",
            format!(
                "the delegate of site {site} makes no tokens (JWT-SVIDs): they come again with the control node"
            ),
        )),
        Purpose::Delegate(_) | Purpose::Report(_) | Purpose::Follow(_) => Err(Reject::new(
            StatusCode::FORBIDDEN,
            "a_delegate",
            format!("this is the delegate of site {site}, which makes no other delegates"),
        )),
        Purpose::Sync(peer) => {
            node.ca.authority().check_site(&peer.id)?;
            Ok(purpose)
        }
        Purpose::Join | Purpose::Challenge | Purpose::Bundle | Purpose::Renew(_) => Ok(purpose),
    }
}

fn no_such_path() -> Reject {
    Reject::new(
        StatusCode::NOT_FOUND,
        "no_such_path",
        "a control node answers POST /v1/challenge, /v1/join, /v1/bundle, /v1/renew, /v1/jwt and /v1/sync, of delegates /v1/delegate, /v1/delegate/report and /v1/delegate/follow, and nothing else",
    )
}

/// Answers a join.
pub(super) async fn join(node: &Node, body: &[u8], remote: SocketAddr) -> Result<Vec<u8>, Reject> {
    let (reply, recorded) = admit(node, body, remote).await;
    if let (Err(reject), false) = (&reply, recorded) {
        record(node, reject, remote).await;
    }
    json(&told(node, reply, remote)?)
}

/// The answer, and whether a refusal is in the audit log already with all that there is to know: of a flood only some
/// are written, and none should take the place of another for nothing.
async fn admit(
    node: &Node,
    body: &[u8],
    remote: SocketAddr,
) -> (Result<JoinResponse, Reject>, bool) {
    let request: JoinRequest = match read(body) {
        Ok(request) => request,
        Err(reject) => return (Err(reject), false),
    };
    let (ca, now) = (&node.ca, node.env.wall());
    match &request.attestation {
        None => {
            let reply = issue::join(ca, &*node.store, &request, remote, now).await;
            (reply, false)
        }
        Some(attestation) => {
            let attestors = &node.attestors;
            let reply =
                issue::join_attested(ca, attestors, &request, attestation, remote, now).await;
            (reply, true)
        }
    }
}

async fn record(node: &Node, reject: &Reject, remote: SocketAddr) {
    let event = Event::new("join.refused", "unknown", remote).with("code", &reject.problem.code);
    node.ca.audit().refused(event).await;
}

/// A refusal is counted and logged.
fn told<T>(node: &Node, reply: Result<T, Reject>, remote: SocketAddr) -> Result<T, Reject> {
    if let Err(reject) = &reply {
        node.join_refusals.count(&reject.problem.code);
        tracing::warn!(%remote, code = reject.problem.code, "a join was refused");
    }
    reply
}

/// Answers the wish for a challenge.
pub(super) async fn challenge(node: &Node, remote: SocketAddr) -> Result<Vec<u8>, Reject> {
    let reply = node.attestors.challenge().await;
    if let Err(reject) = &reply {
        record(node, reject, remote).await;
    }
    json(&told(node, reply, remote)?)
}

/// Whom the mesh trusts.
pub(super) fn bundle(node: &Node) -> Result<Vec<u8>, Reject> {
    let bundles = issue::bundles(&node.ca);
    json(&BundleResponse { bundles })
}

/// Answers a renewal.
pub(super) async fn renew(
    node: &Node,
    body: &[u8],
    peer: &PeerIdentity,
    remote: SocketAddr,
) -> Result<Vec<u8>, Reject> {
    json(&issue::renew(&node.ca, &read(body)?, peer, remote).await?)
}

/// Answers the wish for a token.
pub(super) async fn jwt(node: &Node, body: &[u8], peer: &PeerIdentity) -> Result<Vec<u8>, Reject> {
    json(&node.tokens.issue(&read(body)?, &peer.id).await?)
}

/// Answers a delegate that is to be made or renewed.
pub(super) async fn delegate(
    node: &Node,
    body: &[u8],
    peer: Option<&PeerIdentity>,
    remote: SocketAddr,
) -> Result<Vec<u8>, Reject> {
    let reply = delegate::certify(node, &read(body)?, peer, remote).await;
    json(&told(node, reply, remote)?)
}

/// Answers a delegate's report.
pub(super) async fn report(
    node: &Node,
    body: &[u8],
    peer: &PeerIdentity,
    remote: SocketAddr,
) -> Result<Vec<u8>, Reject> {
    json(&delegate::report(node, &read(body)?, peer, remote).await?)
}

/// Answers a delegate that follows what is pushed.
pub(super) async fn follow(
    node: &Node,
    body: &[u8],
    peer: &PeerIdentity,
) -> Result<Vec<u8>, Reject> {
    let frame = delegate::follow(node, &read(body)?, peer).await?;
    Ok(frame.to_vec())
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reject> {
    serde_json::from_slice(body).map_err(|error| {
        Reject::bad_request(
            "bad_request",
            format!("the request cannot be read: {error}"),
        )
    })
}

fn json(reply: &impl Serialize) -> Result<Vec<u8>, Reject> {
    serde_json::to_vec(reply).map_err(|error| {
        Reject::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        )
    })
}

/// A sidecar that has greeted and is registered. Dropping it before its end counts as a lost connection.
pub(super) struct Attended {
    node: Arc<Node>,
    instance: String,
    epoch: Epoch,
    session: Option<Session>,
}

/// Takes the greeting of a sync stream and registers the sidecar.
pub(super) async fn greet(
    node: &Arc<Node>,
    messages: &mut Messages<impl Inlet>,
    peer: &PeerIdentity,
    remote: SocketAddr,
) -> Result<Attended, Reject> {
    let hello = messages.greeting().await;
    let hello = hello.map_err(|reason| Reject::bad_request("bad_hello", reason))?;
    let registered = node.registry.arrive(&Arrival {
        identity: &peer.id,
        not_after_unix: unix_s(peer.not_after),
        remote: remote.ip(),
        hello: &hello,
        unix_ms: unix_ms(node.env.wall()),
    });
    let registered = registered.inspect_err(|refusal| {
        tracing::warn!(id = %peer.id, %remote, %refusal, "a sidecar was refused");
    })?;
    tracing::info!(
        id = %peer.id, instance = hello.instance, %remote, version = hello.version,
        revision = hello.revision, "sidecar connected"
    );
    let epoch = registered.epoch;
    Ok(Attended {
        node: node.clone(),
        instance: hello.instance.clone(),
        epoch,
        session: Some(Session {
            registry: node.registry.clone(),
            feed: node.feed.clone(),
            instance: hello.instance,
            registered,
        }),
    })
}

impl Attended {
    /// Serves it to its end.
    pub(super) async fn attend(
        mut self,
        messages: Messages<impl Inlet>,
        outlet: &mut impl Outlet,
        stop: CancellationToken,
    ) -> Ending {
        let Some(session) = self.session.take() else {
            return Ending::Stopped;
        };
        let ending = session.run(messages, outlet, stop).await;
        let instance = &self.instance;
        match &ending {
            Ending::Goodbye => {
                tracing::info!(instance, "sidecar left");
                if self.node.settings.site.is_some() {
                    let forgotten = delegate::forget(&*self.node.store, instance).await;
                    if let Err(error) = forgotten {
                        tracing::warn!(%error, instance, "it is called until the control node is back");
                    }
                }
                self.node.registry.leave(instance, self.epoch);
            }
            Ending::Lost(reason) => tracing::info!(instance, reason, "sidecar lost"),
            Ending::Replaced => tracing::info!(instance, "sidecar reconnected"),
            Ending::Stopped => tracing::debug!(instance, "session stopped"),
        }
        ending
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        // Of no effect on one that left or was replaced.
        let now = unix_ms(self.node.env.wall());
        self.node.registry.lose(&self.instance, self.epoch, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_joining_is_open_without_a_certificate() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let peer = crate::testing::peer("invoices");
        let base = "https://control.weft-system";
        let code = |method: &Method, path: &str, peer: Option<PeerIdentity>| match purpose(
            method,
            &uri(path),
            peer,
        ) {
            Ok(_) => 200,
            Err(reject) => reject.status.as_u16(),
        };
        for (path, without, with) in [
            (format!("{base}/v1/join"), 200, 200),
            (format!("{base}/v1/challenge"), 200, 200),
            (format!("{base}/v1/bundle"), 200, 200),
            (format!("{base}/v1/renew"), 401, 200),
            (format!("{base}/v1/jwt"), 401, 200),
            (format!("{base}/v1/sync"), 401, 200),
            (format!("{base}/v1/delegate"), 200, 200),
            (format!("{base}/v1/delegate/report"), 401, 200),
            (format!("{base}/v1/delegate/follow"), 401, 200),
            (format!("{base}/v1/other"), 404, 404),
            (format!("{base}/"), 404, 404),
            ("https://invoices.default/v1/join".to_owned(), 404, 404),
        ] {
            assert_eq!(code(&Method::POST, &path, None), without, "{path}");
            assert_eq!(
                code(&Method::POST, &path, Some(peer.clone())),
                with,
                "{path}"
            );
            assert_eq!(code(&Method::GET, &path, Some(peer.clone())), 404, "{path}");
        }
    }
}
