//! Renewing the SVID: at half its life, or when a control node asks; each time with a new key.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use weft_certs::{BundleSet, X509Svid};
use weft_env::mutants::{Mutant, broken};
use weft_transport::Connection;
use weft_wire::{PATH_RENEW, Renew, RenewRequest, RenewResponse};

use crate::attest::Again;
use crate::backoff::{Backoff, fraction};
use crate::csr::Pending;
use crate::node::Node;
use crate::rpc;
use crate::state_dir::StateDir;

/// First and longest wait after a failed renewal, with full jitter.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// The wall clock can be set while we sleep, so no sleep is longer than this.
const LOOK: Duration = Duration::from_secs(10);
/// How long one attempt waits for a link to a control node.
const LINK: Duration = Duration::from_secs(5);

/// Keeps the SVID fresh.
pub(crate) struct Renewal {
    pub(crate) node: Arc<Node>,
    pub(crate) state: Arc<StateDir>,
    /// The connection to a control node, if there is one.
    pub(crate) link: watch::Receiver<Option<Connection>>,
    /// What to do when the SVID has ended all the same; `None`: an operator must come.
    pub(crate) again: Option<Again>,
    /// Wishes of the control node.
    pub(crate) wishes: mpsc::Receiver<Renew>,
}

/// When to renew next.
#[derive(Clone, Copy)]
enum Due {
    /// By the wall clock, which certificates go by.
    At(SystemTime),
    /// After a wait. Not by the wall clock: a wait that began while it was wrong would never end.
    In(Instant),
}

impl Due {
    fn left(self, wall: SystemTime) -> Duration {
        match self {
            Self::At(at) => at.duration_since(wall).unwrap_or_default(),
            Self::In(at) => at.saturating_duration_since(Instant::now()),
        }
    }
}

impl Renewal {
    /// Runs until `stop`. It may be run again.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Self {
        self.keep(&stop).await;
        self
    }

    async fn keep(&mut self, stop: &CancellationToken) {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        let mut due = self.half_life();
        loop {
            let wait = due.left(self.wall()).min(LOOK);
            let asked = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                wish = self.wishes.recv() => match wish {
                    Some(wish) => Some(wish),
                    None => return,
                },
                () = sleep(wait) => None,
            };
            if let Some(wish) = asked {
                let window = Duration::from_millis(wish.within_ms);
                due = Due::In(Instant::now() + fraction(window, self.node.dice.draw()));
                backoff.reset();
            }
            if !due.left(self.wall()).is_zero() {
                continue;
            }
            let renewed = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                renewed = self.renew() => renewed,
            };
            due = match renewed {
                Ok(()) => {
                    backoff.reset();
                    // Wishes that came meanwhile are fulfilled.
                    while self.wishes.try_recv().is_ok() {}
                    self.half_life()
                }
                Err(reason) => self.failed(&reason, &mut backoff),
            };
        }
    }

    fn wall(&self) -> SystemTime {
        self.node.env.wall()
    }

    /// Half of the SVID's life, a tenth of that more or less, so that services that were started together
    /// do not renew together.
    fn half_life(&self) -> Due {
        let svid = &self.node.identity.current().svid;
        let half = svid.half_life();
        let spread = fraction(half / 5, self.node.dice.draw());
        Due::At(svid.not_after() - half - half / 10 + spread)
    }

    fn failed(&self, reason: &str, backoff: &mut Backoff) -> Due {
        let end = self.node.identity.current().svid.not_after();
        let left = end.duration_since(self.wall()).unwrap_or_default();
        let wait = in_time(backoff.next(self.node.dice.draw()), left);
        if left.is_zero() && self.again.is_some() {
            tracing::error!(
                reason,
                wait_ms = wait.as_millis(),
                "the SVID has expired, and joining again has failed: peers refuse this sidecar; it tries again"
            );
        } else if left.is_zero() {
            tracing::error!(
                reason,
                "the SVID has expired and is not renewed: peers refuse this sidecar. If no control node can help, \
                 remove svid.pem and join again with a new token (`weft token create`), and with the new --pin \
                 (`weft ca show`) if the root was replaced meanwhile"
            );
        } else {
            tracing::warn!(
                reason,
                left_s = left.as_secs(),
                wait_ms = wait.as_millis(),
                "the SVID is not renewed yet"
            );
        }
        if broken(Mutant::WaitsByTheWallClock) {
            return Due::At(self.wall() + wait);
        }
        Due::In(Instant::now() + wait)
    }

    /// One attempt. With an SVID that has ended nobody answers: then by a new proof, if there is one to give.
    async fn renew(&mut self) -> Result<(), String> {
        if let Some(again) = &self.again
            && self.node.identity.current().svid.not_after() <= self.wall()
        {
            let joined = again.join(&self.node).await;
            let (svid, bundles) = joined.map_err(|error| error.to_string())?;
            self.take(svid, &bundles).await?;
            tracing::info!("joined again after the SVID had ended");
            return Ok(());
        }
        let connection = self
            .linked()
            .await
            .ok_or("there is no link to a control node")?;
        let pending = Pending::generate()?;
        let request = RenewRequest {
            csr: pending.csr.clone(),
        };
        let answer: RenewResponse = rpc::call(&connection, PATH_RENEW, &request)
            .await
            .map_err(|error| error.to_string())?;
        let (svid, bundles) = pending.complete(&answer)?;
        self.take(svid, &bundles).await
    }

    async fn linked(&mut self) -> Option<Connection> {
        // One that is retired is being replaced; the next one is announced.
        let usable = |link: &Option<Connection>| link.as_ref().is_some_and(|c| !c.is_retired());
        match timeout(LINK, self.link.wait_for(usable)).await {
            Ok(Ok(link)) => link.clone(),
            _ => None,
        }
    }

    async fn take(&self, svid: X509Svid, offered: &BundleSet) -> Result<(), String> {
        let node = &self.node;
        let (current, now) = (node.identity.current(), self.wall());
        if *svid.id() != node.id {
            return Err(format!(
                "the new SVID is for {}, not {}",
                svid.id(),
                node.id
            ));
        }
        let bundles = newer(&current.bundles, offered);
        svid.validate(&bundles, now)
            .map_err(|error| format!("the new SVID cannot be used: {error}"))?;
        let saved = if bundles == *current.bundles {
            self.state.save_svid(&node.env, &svid).await
        } else {
            self.state.save_identity(&node.env, &svid, &bundles).await
        };
        if let Err(error) = saved {
            // The old one on disk is good for a restart until it ends. Not to use the new one would make an
            // outage of a full disk.
            tracing::error!(%error, "the new SVID cannot be saved, and is used all the same: mend the disk before this sidecar is restarted");
        }
        let serial = svid.serial().to_owned();
        let replaced = if bundles == *current.bundles {
            node.identity.replace_svid(svid, now)
        } else {
            node.identity.replace(svid, bundles, now)
        };
        replaced.map_err(|error| error.to_string())?;
        node.telemetry.svid_renewed();
        tracing::info!(serial, "a new SVID is in use");
        Ok(())
    }
}

/// A wait after a failed renewal, where the SVID has so long to live: never so long that it ends meanwhile, and nobody
/// has tried.
fn in_time(wait: Duration, left: Duration) -> Duration {
    if left.is_zero() {
        return wait;
    }
    wait.min((left / 2).max(RETRY.0))
}

/// The bundles in use, each replaced by the offered one if that is of a later edition.
fn newer(current: &BundleSet, offered: &BundleSet) -> BundleSet {
    let mut bundles = current.clone();
    for bundle in offered.iter() {
        let known = current.get(&bundle.trust_domain);
        if known.is_none_or(|known| known.sequence < bundle.sequence) {
            bundles.insert(bundle.clone());
        }
    }
    bundles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wait_after_a_failed_renewal_outlasts_the_svid() {
        let s = Duration::from_secs;
        assert_eq!(in_time(s(44), s(16)), s(8));
        assert_eq!(in_time(s(3), s(16)), s(3));
        assert_eq!(in_time(s(60), s(1_800)), s(60));
        // Neither in a spin at the end, nor after it.
        assert_eq!(in_time(s(44), Duration::from_millis(10)), RETRY.0);
        assert_eq!(in_time(s(44), Duration::ZERO), s(44));
    }
}
