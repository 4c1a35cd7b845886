//! What the command line asks of the authority.

use std::time::Duration;

use http::Method;
use weft_certs::{RevocationList, TrustBundle};

use super::client::{AdminClient, AdminError, REPLY, request};
use super::query;
use super::types::{
    AuditPage, BackupReply, BackupRequest, CaPlan, CsrReply, DelegateCreate, DelegateCreated,
    DelegateInfo, EvidenceInfo, ImportRequest, Proof, ReadmitRequest, RevokeRequest, Revoked,
    RotateCa, SlotReply, SlotRequest,
};

impl AdminClient {
    /// What a rotation would do. Nothing is done.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn plan_ca(&self, request: &RotateCa) -> Result<CaPlan, AdminError> {
        self.call(Method::POST, "/v1/ca/plan", Some(request)).await
    }

    /// Makes the next authority of a role (`root` or `issuing`); it signs nothing yet.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if its slot is taken or a rotation is under way.
    pub async fn prepare_ca(&self, role: &str) -> Result<SlotReply, AdminError> {
        let path = format!("/v1/ca/prepare/{}", query::escape(role));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// Brings a prepared authority into use; a root only once every live sidecar trusts it.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with the names of those that do not.
    pub async fn activate_ca(&self, request: &SlotRequest) -> Result<SlotReply, AdminError> {
        self.call(Method::POST, "/v1/ca/activate", Some(request))
            .await
    }

    /// Notes that an authority's key may be in other hands.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for the one that signs.
    pub async fn taint_ca(&self, request: &SlotRequest) -> Result<SlotReply, AdminError> {
        self.call(Method::POST, "/v1/ca/taint", Some(request)).await
    }

    /// Distrusts an authority, and everything under it, at once.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for the one that signs, or with the names of sidecars that it would cut off.
    pub async fn revoke_ca(&self, request: &SlotRequest) -> Result<SlotReply, AdminError> {
        self.call(Method::POST, "/v1/ca/revoke", Some(request))
            .await
    }

    /// Makes a key for the next issuing CA, and the request that a root elsewhere is to sign.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if the slot is taken.
    pub async fn csr_ca(&self) -> Result<CsrReply, AdminError> {
        self.call(Method::POST, "/v1/ca/csr", None::<&()>).await
    }

    /// Takes the certificates that answer a request.
    ///
    /// # Errors
    /// [`AdminError::Refused`] with the rule that they break.
    pub async fn import_ca(&self, request: &ImportRequest) -> Result<SlotReply, AdminError> {
        self.call(Method::POST, "/v1/ca/import", Some(request))
            .await
    }

    /// Authorizes the delegate of a site.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for a list that is too wide, or a life out of bounds.
    pub async fn create_delegate(
        &self,
        request: &DelegateCreate,
    ) -> Result<DelegateCreated, AdminError> {
        self.call(Method::POST, "/v1/ca/delegates", Some(request))
            .await
    }

    /// All delegates.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn delegates(&self) -> Result<Vec<DelegateInfo>, AdminError> {
        self.get("/v1/ca/delegates").await
    }

    /// Ends a delegate and all that it issued.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if there is none, or it is ended already.
    pub async fn revoke_delegate(&self, site: &str) -> Result<Revoked, AdminError> {
        let path = format!("/v1/ca/delegates/{}/revoke", query::escape(site));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// The trust bundle.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn bundle(&self) -> Result<TrustBundle, AdminError> {
        self.get("/v1/ca/bundle").await
    }

    /// The whole state, sealed with this secret.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for a secret that is too short.
    pub async fn backup(&self, request: &BackupRequest) -> Result<BackupReply, AdminError> {
        self.call(Method::POST, "/v1/ca/backup", Some(request))
            .await
    }

    /// Evidence of all finished rotations, oldest first.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn evidence(&self) -> Result<Vec<EvidenceInfo>, AdminError> {
        self.get("/v1/ca/evidence").await
    }

    /// Ends an identity, a key or a certificate.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for what is revoked already, or would take the mesh down with it.
    pub async fn revoke(&self, request: &RevokeRequest) -> Result<Revoked, AdminError> {
        self.call(Method::POST, "/v1/revoke", Some(request)).await
    }

    /// Lets an identity in again. The edition of the list that says so.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if it is not revoked.
    pub async fn readmit(&self, request: &ReadmitRequest) -> Result<u64, AdminError> {
        self.call(Method::POST, "/v1/readmit", Some(request)).await
    }

    /// What is revoked.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn revoked(&self) -> Result<RevocationList, AdminError> {
        self.get("/v1/revoked").await
    }

    /// Returns when every sidecar enforces this edition of what is revoked, or `deadline` has passed.
    ///
    /// # Errors
    /// [`AdminError`]. Absent sidecars are no error: they are named.
    pub async fn prove(
        &self,
        edition: u64,
        since_unix_ms: u64,
        deadline: Duration,
    ) -> Result<Proof, AdminError> {
        let path = format!(
            "/v1/proof?edition={edition}&since_unix_ms={since_unix_ms}&timeout_ms={}",
            deadline.as_millis()
        );
        let request = request(Method::GET, &path, None::<&()>)?;
        self.exchange(request, REPLY + deadline).await
    }

    /// Records of the audit log after this one, as many as one reply takes.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn audit(&self, after: u64) -> Result<AuditPage, AdminError> {
        self.get(&format!("/v1/audit?after={after}")).await
    }

    /// Takes an unused join token back.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if there is none that begins like this, or it was used.
    pub async fn revoke_token(&self, id: &str) -> Result<(), AdminError> {
        let path = format!("/v1/tokens/{}/revoke", query::escape(id));
        self.call(Method::POST, &path, None::<&()>).await
    }
}
