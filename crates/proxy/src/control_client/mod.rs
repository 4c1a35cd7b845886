//! The link to the control plane: one connection to one control node, config in, health out.
//!
//! `mod` keeps a connection (dial, reconnect, replace before it ends), `session` is the sync stream on it,
//! `homes` where it leads, `desired` what was pushed, `apply` what of it is in force, `report` what is told.

mod apply;
mod desired;
mod homes;
mod outage;
mod report;
mod session;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_certs::{SpiffeId, TrustDomain};
use weft_env::DiskError;
use weft_env::mutants::{Mutant, broken};
use weft_resources::SYSTEM_NAMESPACE;
use weft_transport::{Connection, Endpoint};
use weft_wire::{Hello, Renew};

use crate::backoff::Backoff;
use crate::node::Node;
use crate::state_dir::StateDir;
pub(crate) use apply::Applier;
pub(crate) use desired::Unusable;
pub(crate) use homes::Homes;
use homes::{Home, is_cut_off};
pub(crate) use outage::Outage;
use report::Reporter;
use session::{End, Open, Session};

/// First and longest wait before the next try to reach a control node, with full jitter.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The SPIFFE ID of a control node.
pub(crate) fn control_id(domain: &TrustDomain) -> SpiffeId {
    SpiffeId::for_service(domain, SYSTEM_NAMESPACE, "control")
        .expect("two constant segments are legal")
}

/// Keeps the link for the life of the sidecar.
pub(crate) struct ControlClient {
    pub(crate) node: Arc<Node>,
    pub(crate) endpoint: Endpoint,
    /// Where it leads.
    pub(crate) homes: Homes,
    pub(crate) applier: Applier,
    pub(crate) state: Arc<StateDir>,
    /// What is said first on each stream, but for revision and serial.
    pub(crate) hello: Hello,
    /// The connection in use, for others who have something to ask.
    pub(crate) link: watch::Sender<Option<Connection>>,
    /// Where a control node's wish for a new SVID goes.
    pub(crate) renew: mpsc::Sender<Renew>,
    /// Why the last attempt to save failed.
    pub(crate) unsaved: Option<String>,
    /// Set when another process of this instance goes on: it is no goodbye.
    pub(crate) goes_on: Arc<AtomicBool>,
}

impl ControlClient {
    /// Runs until `stop`, and says goodbye then. It may be run again.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        self.keep(&stop).await;
        self
    }

    async fn keep(&mut self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(RECONNECT.0, RECONNECT.1);
        let mut first = 0;
        let mut reporter = Reporter::default();
        let mut outage = Outage::default();
        while !stop.is_cancelled() {
            let dialled = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                dialled = self.dial(first) => dialled,
            };
            let lost = match dialled {
                Ok((home, connection)) => {
                    first = home.first();
                    let began = self.node.uptime();
                    let lost = self.attend((home, connection), &mut reporter, stop).await;
                    // One that lasted is no reason to wait, one that broke at once is.
                    if self.node.uptime().saturating_sub(began) > RECONNECT.1 {
                        backoff.reset();
                        outage = Outage::default();
                    }
                    lost
                }
                Err(reason) => Some(reason),
            };
            let Some(reason) = lost else { return };
            first = (first + 1) % self.homes.control.len().max(1);
            let wait = backoff.next(self.node.dice.draw());
            if broken(Mutant::LeaksAtReconnect) {
                drop(self.node.env.spawn(std::future::pending::<()>()));
            }
            if let Some(attempts) = outage.failed(&reason, self.node.uptime()) {
                tracing::warn!(%reason, attempts, "no link to a control node, trying on: traffic goes on as it is");
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// A control node, or the delegate of the site where that is to stand in.
    async fn dial(&self, first: usize) -> Result<(Home, Connection), String> {
        let node = &self.node;
        let reason = match self.homes.dial_control(node, first).await {
            Err(reason) if self.homes.delegate.is_some() => reason,
            decided => return decided,
        };
        let svid = Arc::clone(&node.identity.current().svid);
        if !is_cut_off(&svid, self.applier.revision().is_some(), node.env.wall()) {
            return Err(reason);
        }
        let dialled = self.homes.dial_delegate(node).await;
        dialled.map_err(|delegate| format!("{reason}; the delegate of the site: {delegate}"))
    }

    /// Holds sessions on one connection after another, each opened before the last one ends. `None` after
    /// a stop, else why the link was lost.
    async fn attend(
        &mut self,
        (mut home, mut connection): (Home, Connection),
        reporter: &mut Reporter,
        stop: &CancellationToken,
    ) -> Option<String> {
        let mut before: Option<Box<Open>> = None;
        loop {
            let opened = tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                opened = Session::open(self, (home, connection)) => opened,
            };
            drop(before.take());
            let session = match opened {
                Ok(session) => session,
                Err(reason) => return Some(reason),
            };
            let end = session.run(reporter, stop).await;
            self.link.send_replace(None);
            self.save().await;
            match end {
                End::Stopped => return None,
                End::Lost(reason) => return Some(reason),
                End::Replaced(open, next) => {
                    before = Some(open);
                    (home, connection) = next;
                }
            }
        }
    }

    /// Writes what is not saved yet. Failing to save is no reason to stop: what is in force is in force.
    pub(super) async fn save(&mut self) {
        let (snapshot, bundles) = self.applier.take_unsaved();
        if snapshot.is_none() && bundles.is_none() {
            return;
        }
        let saved = write(&self.node, &self.state, snapshot, bundles).await;
        if let Err(error) = &saved {
            tracing::error!(%error, "cannot save what is in force: a restart would go back to what was saved before");
            self.applier.save_again();
        }
        self.unsaved = saved.err().map(|error| told(&error));
        let telemetry = &self.node.telemetry;
        telemetry.set_config_unsaved(self.unsaved.is_some());
    }
}

/// Why saving failed, as it is told to others: without the path, which means nothing on another machine.
fn told(error: &crate::Error) -> String {
    match error {
        crate::Error::StateDir {
            source: DiskError::Io { path, source, .. },
            ..
        } => {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            format!("{file}: {source}")
        }
        other => other.to_string(),
    }
}

async fn write(
    node: &Node,
    state: &StateDir,
    snapshot: Option<crate::state_dir::SavedSnapshot>,
    bundles: Option<Arc<weft_certs::BundleSet>>,
) -> Result<(), crate::Error> {
    if let Some(bundles) = bundles {
        state.save_bundles(&node.env, &bundles).await?;
    }
    if let Some(snapshot) = snapshot {
        state.save_snapshot(&node.env, snapshot).await?;
    }
    Ok(())
}
