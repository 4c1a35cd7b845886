//! From a request to what the control node does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use weft_ca::audit::Event;
use weft_resources::ResourceKey;

use super::query;
use super::types::{
    ApplyRequest, DeleteRequest, EdgeList, Progress, Proof, ResourceFilter, RotateCerts,
    TokenCreated, TokenRequest, WaitReply,
};
use crate::issue::{self, Rotation, create_token, list_tokens, revoke_token};
use crate::node::Node;
use crate::problem::Reject;
use crate::registry::{Lost, receipts};
use crate::time::unix_s;
use crate::{resources, status};

/// Longest wait for receipts.
const MAX_WAIT: Duration = Duration::from_secs(600);

/// A whole reply.
pub(super) struct Reply {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
}

/// What a request gets.
pub(super) enum Answer {
    Json(Reply),
    Progress(watch::Receiver<Progress>),
}

/// Answers one request.
pub(super) async fn answer(
    node: &Arc<Node>,
    method: &Method,
    uri: &Uri,
    body: &[u8],
    by: &str,
) -> Result<Answer, Reject> {
    let segments = segments(uri.path())?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query = query::decode(uri.query().unwrap_or_default())
        .ok_or_else(|| Reject::bad_request("bad_query", "the query string is malformed"))?;
    if let Some(site) = &node.settings.site
        && !at_a_delegate(method, &segments)
    {
        return Err(Reject::new(
            StatusCode::CONFLICT,
            "a_delegate",
            format!(
                "this is the delegate of site {site}: it makes tokens and shows what it knows; do this at the control node"
            ),
        ));
    }
    match (method.as_str(), segments.as_slice()) {
        ("POST", ["v1", "tokens"]) => token(node, &read(body)?, by).await,
        ("GET", ["v1", "tokens"]) => ok(&list_tokens(&*node.store, node.env.wall()).await?),
        ("POST", ["v1", "apply"]) => {
            let request: ApplyRequest = read(body)?;
            ok(&resources::apply(&node.env, &*node.store, &request.resources).await?)
        }
        ("GET", ["v1", "resources"]) => ok(&resources::list(&*node.store, &filter(query)?).await?),
        ("POST", ["v1", "delete"]) => {
            let request: DeleteRequest = read(body)?;
            let keys: Result<Vec<ResourceKey>, _> =
                request.keys.iter().map(|key| key.parse()).collect();
            let keys = keys.map_err(|error| Reject::bad_request("bad_key", format!("{error}")))?;
            ok(&resources::delete(&node.env, &*node.store, &keys).await?)
        }
        ("GET", ["v1", "status"]) => ok(&status::status(node)?),
        ("GET", ["v1", "wait"]) => ok(&wait(node, &query).await?),
        ("GET", ["v1", "edges"]) => ok(&EdgeList {
            edges: node.registry.edges(|edges| edges.list()),
        }),
        ("POST", ["v1", "certs", "rotate"]) => {
            let request: RotateCerts = read_or_default(body)?;
            rotate(node, Rotation::Leaves(request), by).await
        }
        ("POST", ["v1", "tokens", id, "revoke"]) => {
            let (txn, subject) = revoke_token(&*node.store, id).await?;
            let event = Event::new("token.revoked", subject, by).with("token", id);
            node.ca.audit().commit(txn, vec![event]).await?;
            ok(&())
        }
        ("GET" | "POST", ["v1", "ca", ..]) => {
            super::authority::answer(node, method, &segments[2..], body, by).await
        }
        ("GET" | "POST" | "DELETE", ["v1", "federation", ..]) => {
            super::federation::answer(node, method, &segments[2..], body, by).await
        }
        ("POST", ["v1", "revoke"]) => ok(&issue::revoke(&node.ca, &read(body)?, by).await?),
        ("POST", ["v1", "readmit"]) => ok(&issue::readmit(&node.ca, &read(body)?, by).await?),
        ("GET", ["v1", "revoked"]) => ok(&node.ca.ledger().list()),
        ("GET", ["v1", "proof"]) => ok(&prove(node, &query).await?),
        ("GET", ["v1", "audit"]) => {
            let after = query.get("after").map(|after| after.parse::<u64>());
            let after = after
                .transpose()
                .map_err(|_| Reject::bad_request("bad_query", "'after' must be a whole number"))?;
            ok(&node.ca.audit().page(after.unwrap_or(0)).await?)
        }
        _ => Err(Reject::new(
            StatusCode::NOT_FOUND,
            "no_such_path",
            format!("the admin API has no {method} {}", uri.path()),
        )),
    }
}

/// What can be asked of a delegate: tokens for its site, and whatever changes nothing.
fn at_a_delegate(method: &Method, path: &[&str]) -> bool {
    let tokens = matches!(path, ["v1", "tokens", ..]);
    tokens || (*method == Method::GET && !matches!(path, ["v1", "ca", "delegates"]))
}

async fn token(node: &Node, request: &TokenRequest, by: &str) -> Result<Answer, Reject> {
    let (token, id, expires) = create_token(&node.env, &node.ca, request, by).await?;
    ok(&TokenCreated {
        token: token.reveal().to_owned(),
        spiffe_id: id.to_string(),
        expires_unix: unix_s(expires),
        pin: node.ca.authority().pin()?.to_string(),
    })
}

pub(super) async fn rotate(node: &Node, rotation: Rotation, by: &str) -> Result<Answer, Reject> {
    let started = node.rotations.start(rotation, by).await;
    started.map(Answer::Progress)
}

/// Waits until every sidecar enforces an edition of what is revoked, or the time is over.
async fn prove(node: &Node, query: &BTreeMap<String, String>) -> Result<Proof, Reject> {
    let number = |name| number(query, name);
    let (edition, revoked_at) = (number("edition")?, number("since_unix_ms")?);
    let deadline = Duration::from_millis(number("timeout_ms")?).min(MAX_WAIT);
    let deadline = Instant::now() + deadline;
    let mut changes = node.registry.subscribe();
    let since = (edition, revoked_at);
    loop {
        changes.mark_unchanged();
        let asleep = node.rotations.asleep().await?;
        let ended = issue::ended(&node.ca).await?;
        let proof = node
            .registry
            .read(|table| issue::proof(table, since, &ended, &asleep));
        if proof.absent.is_empty() {
            return Ok(proof);
        }
        match timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(proof),
        }
    }
}

fn number(query: &BTreeMap<String, String>, name: &str) -> Result<u64, Reject> {
    let value = query.get(name).and_then(|value| value.parse::<u64>().ok());
    value
        .ok_or_else(|| Reject::bad_request("bad_query", format!("'{name}' must be a whole number")))
}

async fn wait(node: &Node, query: &BTreeMap<String, String>) -> Result<WaitReply, Reject> {
    let number = |name| number(query, name);
    let revision = number("revision")?;
    let deadline = Duration::from_millis(number("timeout_ms")?).min(MAX_WAIT);
    let deadline = Instant::now() + deadline;
    let mut changes = node.registry.subscribe();
    let mut lost = Lost::default();
    loop {
        changes.mark_unchanged();
        let arrived = node.feed.arrived(revision);
        let mut reply = node
            .registry
            .read(|table| receipts(table, revision, arrived));
        lost.add_to(&mut reply);
        if reply.stragglers.is_empty() {
            return Ok(reply);
        }
        match timeout_at(deadline, changes.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return Ok(reply),
        }
    }
}

fn filter(mut query: BTreeMap<String, String>) -> Result<ResourceFilter, Reject> {
    let filter = ResourceFilter {
        kind: query.remove("kind"),
        namespace: query.remove("namespace"),
        name: query.remove("name"),
    };
    match query.into_keys().next() {
        None => Ok(filter),
        Some(unknown) => Err(Reject::bad_request(
            "bad_query",
            format!("'{unknown}' is not a filter: known are kind, namespace and name"),
        )),
    }
}

fn segments(path: &str) -> Result<Vec<String>, Reject> {
    path.trim_start_matches('/')
        .split('/')
        .map(query::unescape)
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| Reject::bad_request("bad_path", "the path is malformed"))
}

pub(super) fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Reject> {
    serde_json::from_slice(body).map_err(|error| {
        Reject::bad_request(
            "bad_request",
            format!("the request cannot be read: {error}"),
        )
    })
}

pub(super) fn read_or_default<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, Reject> {
    if body.is_empty() {
        return Ok(T::default());
    }
    read(body)
}

pub(super) fn ok(value: &impl Serialize) -> Result<Answer, Reject> {
    let body = serde_json::to_vec(value).map_err(|error| {
        Reject::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            error.to_string(),
        )
    })?;
    Ok(Answer::Json(Reply {
        status: StatusCode::OK,
        body,
    }))
}
