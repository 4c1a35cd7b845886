//! A delegate and its control node: while that can be reached, the delegate renews its certificate, follows what is pushed
//! and reports what it did. While it cannot, all of that waits, and the site goes on.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_ca::Tier;
use weft_ca::audit::Event;
use weft_certs::{RootPin, SpiffeId};
use weft_transport::{Connection, Pool};
use weft_wire::{
    DelegateFollow, DelegateReport, DelegateReportReply, DelegateRequest, DelegateResponse,
    MAX_BODY, MAX_FRAME, PATH_DELEGATE, PATH_DELEGATE_FOLLOW, PATH_DELEGATE_REPORT,
};

use super::client::{AskError, ask, ask_bytes, dial};
use super::enrol;
use super::follow::take;
use crate::issue::{self, Along};
use crate::node::Node;
use crate::settings::MeshSettings;

/// How often the control node is asked. What is pushed reaches the site's sidecars from it directly and at once; the
/// delegate keeps it for later.
const ROUND: Duration = Duration::from_secs(2);
/// The longest wait after a failure.
const LONGEST: Duration = Duration::from_secs(15);
/// So many rounds use what is known already; then everything is asked for anew, whatever became of the control node.
const ROUNDS: u32 = 150;
/// Room for the records of one report, beside what is around them.
const ROOM: usize = MAX_BODY - 4 * 1024;
/// Most records of one report.
const RECORDS: usize = 256;
/// What is looked after between: ended certificates and tokens.
const UPKEEP: Duration = Duration::from_secs(60);

/// Where the control node is.
pub(crate) struct Upstream {
    pub(crate) addresses: Vec<String>,
    pub(crate) pool: Pool,
}

impl Upstream {
    async fn connection(&self, node: &Node) -> Result<Connection, String> {
        let control: SpiffeId = MeshSettings::control_of(&node.settings.trust_domain);
        dial(&node.env, &self.pool, &self.addresses, &control).await
    }
}

/// What is known of the control node since it was last lost.
#[derive(Default)]
struct Known {
    revision: Option<u64>,
    rounds: u32,
}

/// Looks to the control node until `stop`.
pub(crate) async fn keep(node: Arc<Node>, upstream: Upstream, stop: CancellationToken) {
    let (mut known, mut pause) = (Known::default(), Duration::ZERO);
    let mut alone = false;
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
        let done = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            done = round(&node, &upstream, &mut known) => done,
        };
        match done {
            Ok(()) => {
                if std::mem::take(&mut alone) {
                    tracing::info!("the control node is back, and has been told everything");
                }
                pause = ROUND;
            }
            Err(reason) => {
                if !std::mem::replace(&mut alone, true) {
                    tracing::warn!(%reason, "no control node: the site goes on with its delegate, trying on");
                }
                known = Known::default();
                pause = (pause * 2).clamp(ROUND, LONGEST);
            }
        }
    }
}

/// Everything once. The certificate first: without it the rest comes to nothing.
async fn round(node: &Node, upstream: &Upstream, known: &mut Known) -> Result<(), String> {
    let connection = upstream.connection(node).await?;
    let words = |error: AskError| error.to_string();
    let nothing = DelegateReport::default();
    let cursor: DelegateReportReply = ask(&connection, PATH_DELEGATE_REPORT, &nothing)
        .await
        .map_err(words)?;
    if due(node, &cursor.root) {
        renew(node, &connection).await?;
    }
    follow(node, &connection, known).await?;
    report(node, &connection, cursor.taken).await
}

/// Whether a new certificate is wanted: half of the life is over, or another root signs now.
fn due(node: &Node, root: &str) -> bool {
    let authority = node.ca.authority();
    let journal = authority.journal();
    let (Ok(own), Ok(above)) = (journal.active(Tier::Issuing), journal.active(Tier::Root)) else {
        return true;
    };
    let other = RootPin::of(&above.certificate).is_ok_and(|pin| pin.to_string() != root);
    other || node.env.wall() >= half(own.not_before, own.not_after)
}

fn half(begin: SystemTime, end: SystemTime) -> SystemTime {
    begin + end.duration_since(begin).unwrap_or_default() / 2
}

async fn renew(node: &Node, connection: &Connection) -> Result<(), String> {
    let ca = &node.ca;
    let csr = enrol::request(&node.env, ca.keys()).await;
    let request = DelegateRequest {
        token: String::new(),
        csr: csr.map_err(|error| error.to_string())?,
    };
    let answer: DelegateResponse = ask(connection, PATH_DELEGATE, &request)
        .await
        .map_err(|error| error.to_string())?;
    let domain = &node.settings.trust_domain;
    let made = enrol::journal(&answer, domain, node.env.wall());
    let (journal, _) = made.map_err(|error| error.to_string())?;
    let site = answer.site.clone();
    let event = Event::new("delegate.renewed", node.own.id.as_str(), "control").with("site", site);
    ca.step(Box::new(move |_, _, _, _| Ok(journal)), |_| {
        Along::event(event)
    })
    .await
    .map_err(|error| error.to_string())?;
    // Its own certificate is to stand under the new one, which may be under another root.
    node.own.renew().await.map_err(|error| error.to_string())?;
    tracing::info!("the delegate's certificate is renewed");
    Ok(())
}

async fn follow(node: &Node, connection: &Connection, known: &mut Known) -> Result<(), String> {
    if known.rounds == 0 {
        *known = Known {
            revision: None,
            rounds: ROUNDS,
        };
    }
    known.rounds -= 1;
    let request = DelegateFollow {
        revision: known.revision,
    };
    let frame = ask_bytes(connection, PATH_DELEGATE_FOLLOW, &request, MAX_FRAME + 4)
        .await
        .map_err(|error| error.to_string())?;
    if frame.is_empty() {
        return Ok(());
    }
    let followed = take(&*node.store, &frame).await?;
    known.revision = Some(followed.revision);
    if followed.changed > 0 {
        let taken = node.ca.take_trust().await;
        taken.map_err(|error| error.to_string())?;
        node.registry.look_again();
        tracing::debug!(
            revision = followed.revision,
            keys = followed.changed,
            "followed"
        );
    }
    Ok(())
}

/// Sends what the control node does not have yet, in pieces, each of which it keeps.
async fn report(node: &Node, connection: &Connection, mut taken: u64) -> Result<(), String> {
    let audit = node.ca.audit();
    loop {
        let page = audit.page(taken).await.map_err(|error| error.to_string())?;
        let mut records: Vec<Value> = Vec::new();
        let mut bytes = 0;
        for record in page.records.iter().take(RECORDS) {
            let value = serde_json::to_value(record).map_err(|error| error.to_string())?;
            bytes += value.to_string().len() + 1;
            // One alone goes whatever its size: it is the control node that refuses it.
            if bytes > ROOM && !records.is_empty() {
                break;
            }
            records.push(value);
        }
        if records.is_empty() {
            return Ok(());
        }
        let report = DelegateReport { records };
        let reply: DelegateReportReply = ask(connection, PATH_DELEGATE_REPORT, &report)
            .await
            .map_err(|error| error.to_string())?;
        if reply.taken <= taken {
            return Err("the control node does not take the report".to_owned());
        }
        taken = reply.taken;
    }
}

/// Forgets what has ended, and notes which tokens nobody used, until `stop`.
pub(crate) async fn upkeep(node: Arc<Node>, stop: CancellationToken) {
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = sleep(UPKEEP) => {}
        }
        if let Err(error) = issue::prune(&node.ca).await {
            tracing::warn!(%error, "what has ended is not forgotten yet");
        }
        if let Err(error) = issue::note_expired(&node.ca).await {
            tracing::warn!(%error, "expired tokens are not in the audit log yet");
        }
    }
}
