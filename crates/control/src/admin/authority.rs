//! Requests about the authority: `/v1/ca/…`.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Method, StatusCode};
use weft_ca::Secret;
use weft_ca::audit::Event;

use super::routes::{Answer, ok, read, read_or_default, rotate};
use super::types::{BackupReply, BackupRequest, EvidenceInfo, RotateCa, SlotReply, SlotRequest};
use crate::backup;
use crate::delegate;
use crate::issue::{self, Rotation};
use crate::node::Node;
use crate::problem::Reject;

/// Answers one; `path` is what follows `ca`.
pub(super) async fn answer(
    node: &Node,
    method: &Method,
    path: &[&str],
    body: &[u8],
    by: &str,
) -> Result<Answer, Reject> {
    let (ca, rotations) = (&node.ca, &node.rotations);
    match (method.as_str(), path) {
        ("GET", []) => ok(&ca.info()?),
        ("POST", ["rotate"]) => {
            let request: RotateCa = read_or_default(body)?;
            rotate(node, Rotation::Authority(request), by).await
        }
        ("POST", ["plan"]) => ok(&rotations.preview(&read_or_default(body)?).await?),
        ("POST", ["prepare", role]) => {
            slots([issue::prepare(ca, rotations, role, by).await?], Vec::new())
        }
        ("POST", ["activate"]) => {
            let request: SlotRequest = read(body)?;
            let missing = issue::activate(ca, rotations, &node.registry, &request, by).await?;
            slots([request.slot], missing)
        }
        ("POST", ["taint"]) => {
            let request: SlotRequest = read(body)?;
            issue::taint(ca, &request, by).await?;
            slots([request.slot], Vec::new())
        }
        ("POST", ["revoke"]) => {
            let request: SlotRequest = read(body)?;
            let cut = issue::revoke_authority(ca, rotations, &node.registry, &request, by).await?;
            slots([request.slot], cut)
        }
        ("POST", ["csr"]) => ok(&issue::csr(ca, rotations, by).await?),
        ("POST", ["import"]) => slots(
            issue::import(ca, rotations, &read(body)?, by).await?,
            Vec::new(),
        ),
        ("POST", ["backup"]) => {
            let request: BackupRequest = read(body)?;
            let secret = STANDARD
                .decode(&request.secret)
                .map_err(|error| Reject::bad_request("bad_secret", error.to_string()))?;
            let secret = Secret::new(secret)?;
            let event = Event::new("backup.made", node.settings.trust_domain.to_string(), by);
            ca.audit().note(event).await?;
            let (sealed, report) = backup::of_running(&node.env, ca, Arc::new(secret)).await?;
            let sealed = serde_json::from_slice(&sealed).unwrap_or_default();
            ok(&BackupReply { report, sealed })
        }
        ("POST", ["delegates"]) => ok(&delegate::create(&node.env, ca, &read(body)?, by).await?),
        ("GET", ["delegates"]) => ok(&delegate::list(ca).await?),
        ("POST", ["delegates", site, "revoke"]) => ok(&delegate::revoke(ca, site, by).await?),
        ("GET", ["bundle"]) => {
            let bundles = ca.bundles();
            ok(&bundles.get(&ca.config().trust_domain))
        }
        ("GET", ["evidence"]) => {
            let all: Vec<EvidenceInfo> = issue::list_evidence(&*node.store).await?;
            ok(&all)
        }
        _ => Err(Reject::new(
            StatusCode::NOT_FOUND,
            "no_such_path",
            format!("the admin API has no {method} /v1/ca/{}", path.join("/")),
        )),
    }
}

fn slots(
    slots: impl IntoIterator<Item = String>,
    left_behind: Vec<String>,
) -> Result<Answer, Reject> {
    ok(&SlotReply {
        slots: slots.into_iter().collect(),
        left_behind,
    })
}
