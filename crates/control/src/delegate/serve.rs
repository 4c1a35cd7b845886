//! What the control node answers to delegates: enrolment, renewal, reports, and what is pushed.

use std::net::SocketAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use weft_ca::audit::{Event, Record};
use weft_ca::{JoinToken, Tier};
use weft_certs::{PeerIdentity, RootPin, Site, serial_of};
use weft_wire::{
    DelegateFollow, DelegateReport, DelegateReportReply, DelegateRequest, DelegateResponse,
    DelegateTerms,
};

use super::merge::merge;
use super::stored::{Certificate, Stored, Unfit};
use crate::issue::{self, CaService, Leaf};
use crate::node::Node;
use crate::problem::Reject;
use crate::store::{Condition, Entry, Txn, json};
use crate::time::unix_s;

/// Most records of one report: 64 KiB hold fewer.
const MOST_RECORDS: usize = 512;

impl From<Unfit> for Reject {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::Token(error) => error.into(),
            Unfit::Revoked => Self::new(StatusCode::FORBIDDEN, "revoked", unfit.to_string()),
            Unfit::OtherKey => Self::new(StatusCode::CONFLICT, "other_key", unfit.to_string()),
        }
    }
}

fn no_delegate() -> Reject {
    Reject::new(
        StatusCode::FORBIDDEN,
        "not_a_delegate",
        "only a delegate that `weft ca delegate create` has authorized may ask this",
    )
}

/// The delegate that has this identity.
async fn of_peer(ca: &CaService, peer: &PeerIdentity) -> Result<(Entry, Stored), Reject> {
    let name = peer.id.service().map(|(_, name)| name);
    let site = name.and_then(|name| name.strip_prefix("site-"));
    let domain = &ca.config().trust_domain;
    let is_its = |site: &&str| weft_certs::delegate_id(domain, site).is_ok_and(|id| id == peer.id);
    let site = site.filter(is_its).ok_or_else(no_delegate)?;
    let found = Stored::load(&**ca.store(), site).await?;
    let (entry, stored) = found.ok_or_else(no_delegate)?;
    match stored.revoked {
        true => Err(Unfit::Revoked.into()),
        false => Ok((entry, stored)),
    }
}

/// The delegate that this token lets in.
async fn of_token(ca: &CaService, token: &JoinToken) -> Result<(Entry, Stored), Reject> {
    let hash = token.key();
    let all = Stored::all(&**ca.store()).await?;
    let found = all.into_iter().find(|(_, stored)| {
        let record = stored.token.as_ref();
        record.is_some_and(|record| record.hash == hash)
    });
    found.ok_or_else(|| weft_ca::TokenError::Unknown.into())
}

/// Certifies a delegate: by its token, or by the certificate of its connection.
pub(crate) async fn certify(
    node: &Node,
    request: &DelegateRequest,
    peer: Option<&PeerIdentity>,
    remote: SocketAddr,
) -> Result<DelegateResponse, Reject> {
    let certified = try_certify(node, request, peer, remote).await;
    if let Err(reject) = &certified {
        let who = peer.map_or_else(|| "unknown".to_owned(), |peer| peer.id.to_string());
        let event = Event::new("delegate.refused", who, remote)
            .with("code", &reject.problem.code)
            .with("reason", &reject.problem.message);
        node.ca.audit().refused(event).await;
    }
    certified
}

async fn try_certify(
    node: &Node,
    request: &DelegateRequest,
    peer: Option<&PeerIdentity>,
    remote: SocketAddr,
) -> Result<DelegateResponse, Reject> {
    let (ca, now) = (&node.ca, node.env.wall());
    let token = match request.token.is_empty() {
        true => None,
        false => Some(JoinToken::parse(&request.token)?),
    };
    let (entry, stored) = match (&token, peer) {
        (Some(token), _) => of_token(ca, token).await?,
        (None, Some(peer)) => of_peer(ca, peer).await?,
        (None, None) => {
            return Err(Reject::new(
                StatusCode::UNAUTHORIZED,
                "no_token",
                "a delegate comes with the token of `weft ca delegate create`",
            ));
        }
    };
    let site = stored
        .site(&ca.config().trust_domain)
        .ok_or_else(no_delegate)?;
    let csr = issue::decode(&request.csr)?;
    let key = weft_ca::key_of_request(&csr)?;
    stored.admits(&key, token.as_ref().map(|token| (token, now)))?;
    if ca.ledger().list().has_key(&key) {
        return Err(Reject::revoked_key(&key));
    }
    let (site_made, ttl, keys) = (site.clone(), stored.ttl(), ca.keys());
    let made = ca
        .sign_on_disk(move |authority, now, rng| {
            let made = authority.certify_delegate(&csr, &site_made, ttl, &*keys, now, rng)?;
            let root = authority.journal().active(Tier::Root)?;
            Ok((
                made,
                root.id.clone(),
                root.certificate.clone(),
                authority.bundle(),
            ))
        })
        .await?;
    let (certificate, root, root_der, bundle) = made;
    let not_after = weft_certs::not_after_of(&certificate).map_err(|e| {
        Reject::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "authority",
            e.to_string(),
        )
    })?;
    let next = Certificate {
        key,
        serial: serial_of(&certificate).unwrap_or_default(),
        root,
        not_after_unix: unix_s(not_after),
    };
    let event = match &token {
        Some(_) => "delegate.enrolled",
        None => "delegate.renewed",
    };
    let event = Event::new(event, site.delegate(), remote)
        .with("site", site.name())
        .with("permitted", site.permitted().join(" "))
        .with("serial", &next.serial)
        .with("key", key)
        .with("root", &next.root)
        .with("not_after_unix", next.not_after_unix);
    let txn = remember(ca, &site, &stored, &next);
    let kept = Stored {
        token: stored.token.clone().filter(|_| token.is_none()),
        certificate: Some(next),
        heard_unix: unix_s(now),
        ..stored
    };
    let txn = txn
        .when(Condition::At(entry.key.clone(), entry.mod_revision))
        .put(entry.key, json(&kept));
    ca.audit().commit(txn, vec![event]).await?;
    tracing::info!(site = site.name(), %remote, "a delegate was certified");
    let settings = &node.settings;
    Ok(DelegateResponse {
        site: site.name().to_owned(),
        certificate: STANDARD.encode(&certificate),
        root: STANDARD.encode(&root_der),
        bundle: bundle.to_jwks(),
        terms: DelegateTerms {
            leaf_ttl_s: settings.leaf_ttl_s,
            max_leaf_ttl_s: settings.max_leaf_ttl_s,
            issuing_ttl_s: settings.issuing_ttl_s,
            root_ttl_s: settings.root_ttl_s,
            certificates_per_s: settings.certificates_per_s,
        },
    })
}

/// That the delegate's certificate may be in use: a root is not dropped before it has ended. Of the one before it no more
/// than a leaf's life is left: it issues nothing any more.
fn remember(ca: &CaService, site: &Site, before: &Stored, next: &Certificate) -> Txn {
    let leaf = |certificate: &Certificate, not_after_unix| Leaf {
        serial: certificate.serial.clone(),
        id: site.delegate(),
        key: certificate.key,
        issuer: certificate.root.clone(),
        not_after_unix,
    };
    let mut txn = Txn::new();
    if let Some(old) = &before.certificate {
        let end = unix_s(ca.wall() + ca.config().max_leaf_ttl);
        txn = issue::put_leaf(txn, &leaf(old, old.not_after_unix.min(end)));
    }
    issue::put_leaf(txn, &leaf(next, next.not_after_unix))
}

/// Takes what a delegate did into the audit log, and the certificates that it issued among those that are known.
pub(crate) async fn report(
    node: &Node,
    report: &DelegateReport,
    peer: &PeerIdentity,
    remote: SocketAddr,
) -> Result<DelegateReportReply, Reject> {
    let ca = &node.ca;
    let (entry, stored) = of_peer(ca, peer).await?;
    let site = stored
        .site(&ca.config().trust_domain)
        .ok_or_else(no_delegate)?;
    if report.records.len() > MOST_RECORDS {
        return Err(Reject::bad_request(
            "too_many",
            "a report has up to 512 records",
        ));
    }
    let records: Result<Vec<Record>, _> = report
        .records
        .iter()
        .map(|record| serde_json::from_value(record.clone()))
        .collect();
    let records = records.map_err(|e| Reject::bad_request("bad_record", e.to_string()))?;
    let merged = match merge(&site, &stored.taken, &records) {
        Ok(merged) => merged,
        Err(broken) => {
            let event = Event::new("delegate.report_refused", &peer.id, remote)
                .with("site", site.name())
                .with("reason", &broken);
            ca.audit().refused(event).await;
            let message = format!(
                "the report of site {} does not go on where the last one ended: {broken}; if its state directory was lost or put back, revoke it with `weft ca delegate revoke {}` and make another one",
                site.name(),
                site.name()
            );
            return Err(Reject::new(StatusCode::CONFLICT, "broken_log", message));
        }
    };
    let root = RootPin::of(&ca.authority().journal().active(Tier::Root)?.certificate)
        .map(|pin| pin.to_string())
        .unwrap_or_default();
    let (taken, count) = (merged.taken.seq, merged.events.len());
    let heard = unix_s(ca.wall());
    // Said anew at most once a minute: each time is a transaction.
    if count > 0 || stored.heard_unix + 60 < heard {
        let next = Stored {
            taken: merged.taken,
            heard_unix: heard,
            ..stored
        };
        let mut txn = Txn::new()
            .when(Condition::At(entry.key.clone(), entry.mod_revision))
            .put(entry.key, json(&next));
        for leaf in &merged.leaves {
            txn = issue::put_leaf(txn, leaf);
        }
        ca.audit().commit(txn, merged.events).await?;
    }
    if count > 0 {
        tracing::info!(
            site = site.name(),
            records = count,
            "a delegate has reported"
        );
    }
    Ok(DelegateReportReply { taken, root })
}

/// What is pushed, from the revision on that a delegate has.
pub(crate) async fn follow(
    node: &Node,
    request: &DelegateFollow,
    peer: &PeerIdentity,
) -> Result<Bytes, Reject> {
    of_peer(&node.ca, peer).await?;
    let frame = node.feed.frame_since(request.revision).map_err(|error| {
        Reject::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "too_large",
            error.to_string(),
        )
    })?;
    Ok(frame.map_or_else(Bytes::new, |(_, frame)| frame))
}
