//! Fetches each relation's bundle as often as the bundle asks for.

use std::collections::BTreeMap;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_env::Tasks;

use super::Federations;
use super::types::Relation;

/// Keeps one follower for each relation, until the owner of `tasks` stops.
pub(crate) async fn keep(federations: Federations, tasks: Tasks) {
    let stop = tasks.token();
    let mut changes = federations.shared.changes.subscribe();
    let mut followed: BTreeMap<_, (Relation, CancellationToken)> = BTreeMap::new();
    loop {
        changes.mark_unchanged();
        let relations = federations.relations();
        followed.retain(|domain, (relation, end)| {
            let stays = relations.get(domain) == Some(relation);
            if !stays {
                end.cancel();
            }
            stays
        });
        for (domain, relation) in relations {
            if followed.contains_key(&domain) {
                continue;
            }
            let end = stop.child_token();
            tasks.spawn(follow(federations.clone(), relation.clone(), end.clone()));
            followed.insert(domain, (relation, end));
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// After a failure, too, a whole interval passes (SPIFFE Federation §4.1).
async fn follow(federations: Federations, relation: Relation, end: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = end.cancelled() => return,
            () = federations.fetch(&relation) => {}
        }
        let pause = federations.refresh_of(&relation.trust_domain);
        tokio::select! {
            biased;
            () = end.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}
