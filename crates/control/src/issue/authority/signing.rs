//! What the authority signs: leaves for others and for this node, within its rate, remembered before they are handed out.

use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, timeout};
use weft_ca::audit::Event;
use weft_ca::{Authority, Error as CaError, Issued, SlotState, Tier};
use weft_certs::{SpiffeId, X509Svid};
use weft_env::Rng;

use super::{Along, CaService};
use crate::error::ControlError;
use crate::issue::issued;
use crate::problem::Reject;
use crate::store::StoreError;
use crate::time::unix_s;

/// How long anybody waits for a turn with keys that are outside of this process.
const TURN: Duration = Duration::from_secs(10);

impl CaService {
    /// Signs a leaf for an identity that the caller has attested, and remembers it together with `along`, before it is
    /// handed out.
    ///
    /// # Errors
    /// 429 over the rate limit; 403 for what is revoked; otherwise what the authority or the store says.
    pub(crate) async fn issue(
        &self,
        csr: &[u8],
        attested: &SpiffeId,
        by: &str,
        along: Along,
    ) -> Result<Issued, Reject> {
        let issued = match self.try_issue(csr, attested).await {
            Ok(issued) => issued,
            Err(reject) => {
                let event = Event::new("certificate.refused", attested, by)
                    .with("code", &reject.problem.code)
                    .with("reason", &reject.problem.message);
                self.shared.audit.refused(event).await;
                return Err(reject);
            }
        };
        self.remember(&issued, by, along).await?;
        tracing::info!(
            id = %issued.id, serial = issued.serial, issuer = issued.issuer, "certificate issued"
        );
        Ok(issued)
    }

    async fn try_issue(&self, csr: &[u8], attested: &SpiffeId) -> Result<Issued, Reject> {
        let revoked = self.current().revoked;
        if revoked.bars(attested) {
            return Err(Reject::revoked(attested));
        }
        let (limited, rate) = {
            let mut limit = self
                .shared
                .limit
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            (limit.take(Instant::now()), limit.rate())
        };
        limited.map_err(|after| Reject::rate_limited(rate, after))?;
        let (csr, id) = (csr.to_vec(), attested.clone());
        let issued = self
            .sign(move |authority, now, rng| authority.issue(&csr, &id, None, now, rng))
            .await?;
        match revoked.has_key(&issued.key) {
            true => Err(Reject::revoked_key(&issued.key)),
            false => Ok(issued),
        }
    }

    async fn remember(&self, issued: &Issued, by: &str, along: Along) -> Result<(), StoreError> {
        let Along { txn, mut events } = along;
        let event = Event::new("certificate.issued", &issued.id, by)
            .with("serial", &issued.serial)
            .with("key", issued.key)
            .with("issuer", &issued.issuer)
            .with("not_after_unix", unix_s(issued.not_after));
        events.push(event);
        let txn = issued::remember(txn, issued);
        self.shared.audit.commit(txn, events).await.map(drop)
    }

    /// A new SVID for the control node itself. The root goes along, for joiners to check their pin.
    pub(crate) async fn own_svid(&self, id: &SpiffeId) -> Result<X509Svid, ControlError> {
        let request = weft_ca::make_csr(Some(id))?;
        let (csr, own) = (request.csr.clone(), id.clone());
        let signed = self
            .sign(move |authority, now, rng| authority.issue_reserved(&csr, &own, None, now, rng));
        let issued = signed.await?;
        self.remember(&issued, "control", Along::default()).await?;
        let mut chain = issued.chain;
        chain.push(issued.root);
        chain.extend(self.old_roots());
        X509Svid::new(chain, request.key).map_err(|error| ControlError::Damaged {
            what: format!("the control node's own certificate is not usable: {error}"),
        })
    }

    /// Roots on their way out that are still good: a joiner may hold the pin of one.
    fn old_roots(&self) -> Vec<weft_certs::CertificateDer<'static>> {
        let authority = self.authority();
        let roots = authority.journal().slots(Tier::Root).iter();
        roots
            .filter(|slot| slot.state == SlotState::Old && !slot.tainted)
            .map(|slot| slot.certificate.clone())
            .collect()
    }

    /// Has the authority sign something: here and now, or where waiting is allowed if its key is outside of this process.
    pub(crate) async fn sign<T: Send + 'static>(
        &self,
        sign: impl FnOnce(&Authority, SystemTime, &mut Rng) -> Result<T, CaError> + Send + 'static,
    ) -> Result<T, CaError> {
        let shared = &self.shared;
        let (authority, now) = (self.authority(), shared.env.wall());
        if authority.waits() {
            return self.sign_on_disk(sign).await;
        }
        let mut rng = shared.rng.lock().unwrap_or_else(PoisonError::into_inner);
        sign(&authority, now, &mut rng)
    }

    /// The same with keys that are fetched for it, which may be files.
    pub(crate) async fn sign_on_disk<T: Send + 'static>(
        &self,
        sign: impl FnOnce(&Authority, SystemTime, &mut Rng) -> Result<T, CaError> + Send + 'static,
    ) -> Result<T, CaError> {
        let shared = &self.shared;
        let (authority, now) = (self.authority(), shared.env.wall());
        // A place that does not answer holds up a few threads, not all of those that the store needs too.
        let turn = timeout(TURN, shared.waiting.acquire()).await;
        let Ok(Ok(_turn)) = turn else {
            return Err(CaError::KeysBusy);
        };
        let mut rng = shared.env.rng("ca-sign");
        let sign = move || sign(&authority, now, &mut rng);
        shared.env.disk(move |_| sign()).await
    }
}
