//! The control node's own SVID: it certifies itself, and renews at half of its life.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use weft_certs::{IdentitySource, SpiffeId, X509Svid};
use weft_env::Env;

use super::CaService;
use crate::error::ControlError;

/// The wall clock may jump (a machine that slept): look at it at least this often.
const LOOK: Duration = Duration::from_secs(60);
/// Pause before another try after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// Who the control node is.
#[derive(Clone)]
pub(crate) struct OwnIdentity {
    pub(crate) id: SpiffeId,
    pub(crate) source: Arc<IdentitySource>,
    ca: CaService,
    env: Env,
    renewed: Arc<Notify>,
}

impl OwnIdentity {
    /// Certifies itself. A new certificate at each start costs nothing, and no key needs to be kept.
    pub(crate) async fn new(env: &Env, ca: CaService, id: SpiffeId) -> Result<Self, ControlError> {
        let svid = ca.own_svid(&id).await?;
        Ok(Self {
            source: IdentitySource::new(svid, ca.bundles()),
            id,
            ca,
            env: env.clone(),
            renewed: Arc::new(Notify::new()),
        })
    }

    /// Whether its own certificate holds by this machine's clock: with a clock that is off by hours every
    /// sidecar would refuse it, and say so only in its own log.
    ///
    /// # Errors
    /// [`ControlError::OwnCertificate`].
    pub(crate) fn check(&self) -> Result<(), ControlError> {
        let own = self.source.current();
        own.svid
            .validate(&own.bundles, self.env.wall())
            .map_err(ControlError::OwnCertificate)
    }

    /// Takes a new certificate, from the issuing CA that is active now.
    pub(crate) async fn renew(&self) -> Result<(), ControlError> {
        let svid = self.ca.own_svid(&self.id).await?;
        let (serial, now) = (svid.serial().to_owned(), self.env.wall());
        self.source
            .replace(svid, self.ca.bundles(), now)
            .map_err(|error| ControlError::Damaged {
                what: format!("the control node's own new certificate is not usable: {error}"),
            })?;
        tracing::info!(serial, "own certificate renewed");
        self.renewed.notify_one();
        Ok(())
    }
}

/// When to renew: at half of the life.
fn renew_at(svid: &X509Svid) -> SystemTime {
    svid.not_after() - svid.half_life()
}

/// Renews in time, until `stop`.
pub(crate) async fn keep_own_svid(own: OwnIdentity, stop: CancellationToken) {
    loop {
        let due = renew_at(&own.source.current().svid);
        let pause = match due.duration_since(own.env.wall()) {
            Ok(left) if !left.is_zero() => left.min(LOOK),
            _ => match own.renew().await {
                Ok(()) => continue,
                Err(error) => {
                    tracing::error!(%error, "the control node's own certificate cannot be renewed");
                    RETRY
                }
            },
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = own.renewed.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

/// Trusts, and distrusts, as the authority says from one moment to the next, until `stop`.
pub(crate) async fn keep_own_trust(own: OwnIdentity, stop: CancellationToken) {
    let mut changes = own.ca.trust_changes();
    loop {
        changes.mark_unchanged();
        let bundles = own.ca.bundles();
        if *own.source.current().bundles != bundles
            && let Err(error) = own.source.replace_bundles(bundles, own.env.wall())
        {
            tracing::error!(%error, "the control node's own certificate does not fit the trust bundle");
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
