//! Evidence: what proves that a rotation is over, signed with the control node's own certificate.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weft_certs::{
    BundleSet, CertificateDer, ExpectedPeer, RootPin, SignedDocument, SpiffeId, TrustBundle,
};

use super::CaService;
use super::own::OwnIdentity;
use super::plan::Plan;
use crate::admin::types::{Evidence, EvidenceError, EvidenceInfo};
use crate::error::ControlError;
use crate::store::{Store, Txn};
use crate::time::unix_ms;

const PREFIX: &str = "evidence/";
/// What kind of document it is.
const TYPE: &str = "application/vnd.weft.rotation-evidence.v1+json";

/// The record of a finished rotation.
pub(crate) async fn of(plan: &Plan, ca: &CaService) -> Evidence {
    let head = ca.audit().head().await;
    let bundle = ca.authority().bundle();
    Evidence {
        rotation: plan.number,
        role: plan.tier.as_str().to_owned(),
        trust_domain: bundle.trust_domain.to_string(),
        started_unix_ms: plan.started_unix_ms,
        finished_unix_ms: unix_ms(ca.wall()),
        old: plan.old.clone(),
        new_root: plan.root.clone(),
        new_issuing: plan.issuing.clone(),
        bundle_sequence: bundle.sequence,
        waited_for_sleepers: !plan.now,
        acknowledged: plan
            .distributed
            .as_ref()
            .map(|m| m.by.clone())
            .unwrap_or_default(),
        renewed: plan
            .renewed
            .as_ref()
            .map(|m| m.by.clone())
            .unwrap_or_default(),
        missing: [&plan.distributed, &plan.renewed]
            .into_iter()
            .flatten()
            .flat_map(|m| m.missing.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect(),
        asleep: plan
            .renewed
            .as_ref()
            .map(|m| m.asleep.clone())
            .unwrap_or_default(),
        last_chain_to_old: plan.last_old.clone(),
        dropped_unix_ms: plan.dropped_unix_ms,
        audit_seq: head.seq,
        audit_hash: head.hash,
    }
}

/// Signs it, and adds it to what is committed.
pub(crate) fn signed(
    evidence: &Evidence,
    own: &OwnIdentity,
    ca: &CaService,
    txn: Txn,
) -> Result<Txn, ControlError> {
    let fail = |what: String| ControlError::Damaged { what };
    let authority = ca.authority();
    let root = authority.journal().active(weft_ca::Tier::Root)?;
    let payload = serde_json::to_vec(evidence).map_err(|e| fail(e.to_string()))?;
    let svid = &own.source.current().svid;
    let document = SignedDocument::sign(TYPE, &payload, svid, Some(&root.certificate))
        .map_err(|e| fail(format!("the evidence: {e}")))?;
    let json = serde_json::to_vec(&document).map_err(|e| fail(e.to_string()))?;
    Ok(txn.put(format!("{PREFIX}{:08}", evidence.rotation), json))
}

/// All evidence, oldest first.
pub(crate) async fn list(store: &dyn Store) -> Result<Vec<EvidenceInfo>, ControlError> {
    let range = store.range(PREFIX).await?;
    range
        .entries
        .iter()
        .map(|entry| {
            let fail = |reason: String| ControlError::Damaged {
                what: format!("{} cannot be read: {reason}", entry.key),
            };
            let document: SignedDocument =
                serde_json::from_slice(&entry.value).map_err(|e| fail(e.to_string()))?;
            let payload = document.unverified().map_err(|e| fail(e.to_string()))?;
            let evidence = serde_json::from_slice(&payload).map_err(|e| fail(e.to_string()))?;
            Ok(EvidenceInfo { evidence, document })
        })
        .collect()
}

/// How a reader of evidence knows the mesh.
#[derive(Debug, Clone)]
pub enum Anchor {
    /// By the pin of the root that was new then, or is still trusted.
    Pin(RootPin),
    /// By the roots of its bundle.
    Roots(Vec<CertificateDer<'static>>),
}

/// Checks evidence away from the mesh: that the control node of this trust domain signed it, whole, with a
/// certificate that was good then.
///
/// # Errors
/// [`EvidenceError`].
pub fn verify_evidence(text: &[u8], anchor: &Anchor) -> Result<Evidence, EvidenceError> {
    let document: SignedDocument = serde_json::from_slice(text)
        .map_err(|error| EvidenceError::Unreadable(error.to_string()))?;
    let unread = document.unverified()?;
    let claimed: Evidence = serde_json::from_slice(&unread)
        .map_err(|error| EvidenceError::Unreadable(error.to_string()))?;
    let id = format!(
        "spiffe://{}/ns/weft-system/sa/control",
        claimed.trust_domain
    );
    let expected =
        SpiffeId::parse(&id).map_err(|error| EvidenceError::Unreadable(error.to_string()))?;
    let roots = match anchor {
        Anchor::Roots(roots) => roots.clone(),
        Anchor::Pin(pin) => {
            let chain = document.chain()?;
            let root = chain.into_iter().skip(1).find(|der| pin.matches(der));
            vec![root.ok_or(EvidenceError::OtherRoot { pin: *pin })?]
        }
    };
    let bundles = BundleSet::from(TrustBundle {
        trust_domain: expected.trust_domain().clone(),
        sequence: 0,
        roots,
        jwt_keys: Vec::new(),
    });
    let at: SystemTime = UNIX_EPOCH + Duration::from_millis(claimed.finished_unix_ms);
    document.verify(TYPE, &bundles, at, &ExpectedPeer::One(expected))?;
    Ok(claimed)
}
