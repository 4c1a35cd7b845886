//! `k8s`: the token of a service account that a kubelet has projected into a pod. It is good as often as it is
//! presented, until its end.

use std::time::SystemTime;

use http::StatusCode;
use weft_certs::{JwtError, ServiceAccount, ServiceAccountError, verify_service_account};

use super::file::Cluster;
use super::{Attested, Facts, Refused, shown, unmapped};
use crate::problem::Reject;

const KIND: &str = "k8s";

/// The first cluster whose token it is decides; otherwise what the one says that came furthest.
pub(super) fn judge(
    clusters: &[Cluster],
    token: &str,
    now: SystemTime,
) -> Result<Attested, Refused> {
    let mut furthest: Option<(u8, ServiceAccountError, &Cluster)> = None;
    // A file that ends with a newline may have been sent as it is.
    let token = token.trim();
    for cluster in clusters {
        let (issuer, audience) = (&cluster.rules.issuer, &cluster.rules.audience);
        match verify_service_account(token, issuer, audience, &cluster.keys, now) {
            Ok(account) => return accept(cluster, &account),
            Err(error) => {
                let rank = rank(&error);
                if furthest.as_ref().is_none_or(|(best, ..)| *best < rank) {
                    furthest = Some((rank, error, cluster));
                }
            }
        }
    }
    let Some((_, error, cluster)) = furthest else {
        return Err(super::off("a service account token").into());
    };
    let facts = vec![
        ("kind", KIND.to_owned()),
        ("attestor", cluster.rules.name.clone()),
    ];
    let reject = refusal(&error, cluster);
    Err(Refused { reject, facts })
}

fn accept(cluster: &Cluster, account: &ServiceAccount) -> Result<Attested, Refused> {
    let facts = facts(cluster, account);
    let service = cluster.rules.service(&account.namespace, &account.name);
    let service = service.map_err(|error| {
        let who = format!("the service account {}/{}", account.namespace, account.name);
        Refused {
            reject: unmapped(&error, &who),
            facts: facts.clone(),
        }
    })?;
    Ok(Attested {
        service,
        facts,
        key: None,
        issued: Some(account.issued),
    })
}

/// How far a token came.
fn rank(error: &ServiceAccountError) -> u8 {
    match error {
        ServiceAccountError::Token(
            JwtError::Expired { .. } | JwtError::NotYetValid { .. } | JwtError::Audience(_),
        ) => 4,
        ServiceAccountError::Issuer { .. } => 3,
        ServiceAccountError::WrongAlgorithm { .. } | ServiceAccountError::Token(_) => 2,
        ServiceAccountError::Malformed(_) => 1,
        _ => 0,
    }
}

/// The sentence with its next step.
fn refusal(error: &ServiceAccountError, cluster: &Cluster) -> Reject {
    let (name, audience) = (&cluster.rules.name, &cluster.rules.audience);
    let next = match error {
        ServiceAccountError::UnknownKey(_) | ServiceAccountError::Token(JwtError::BadSignature) => {
            format!(
                "if it is of that cluster, write its keys into the jwksFile of attestor {name}: kubectl get --raw /openid/v1/jwks"
            )
        }
        ServiceAccountError::Issuer { .. } => {
            format!("set the issuer of attestor {name}, or use a token of that cluster")
        }
        ServiceAccountError::Token(JwtError::Audience(_)) => {
            format!("project the token with audience: {audience}")
        }
        ServiceAccountError::Token(JwtError::Expired { .. } | JwtError::NotYetValid { .. }) => {
            "name the file that the kubelet keeps fresh, and set the clock that is wrong".to_owned()
        }
        _ => format!("project one into the pod (serviceAccountToken, audience: {audience})"),
    };
    Reject::new(
        StatusCode::UNAUTHORIZED,
        error.reason(),
        format!("the service account token is refused, {error}: {next}"),
    )
}

fn facts(cluster: &Cluster, account: &ServiceAccount) -> Facts {
    let mut facts = vec![
        ("kind", KIND.to_owned()),
        ("attestor", cluster.rules.name.clone()),
        ("namespace", account.namespace.clone()),
        ("service_account", account.name.clone()),
        ("pod", account.pod.clone()),
        ("pod_uid", account.pod_uid.clone()),
    ];
    for (what, text) in [("node", &account.node), ("token_id", &account.id)] {
        if let Some(text) = text {
            facts.push((what, shown(text)));
        }
    }
    facts
}
