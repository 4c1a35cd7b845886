//! The paths and calls of federation.

use http::{Method, StatusCode};
use weft_certs::TrustDomain;

use super::client::{AdminClient, AdminError};
use super::query;
use super::routes::{Answer, ok, read};
use crate::federation::types::{FederateRequest, FederationInfo};
use crate::node::Node;
use crate::problem::Reject;

const PATH: &str = "/v1/federation";

/// Answers what is below [`PATH`].
pub(super) async fn answer(
    node: &Node,
    method: &Method,
    segments: &[&str],
    body: &[u8],
    by: &str,
) -> Result<Answer, Reject> {
    let named = |name: &str| {
        TrustDomain::parse(name)
            .map_err(|error| Reject::bad_request("bad_trust_domain", error.to_string()))
    };
    let federations = &node.federations;
    match (method.as_str(), segments) {
        ("GET", []) => ok(&federations.list()),
        ("POST", []) => {
            let request: FederateRequest = read(body)?;
            let domain = request.relation.trust_domain.clone();
            federations.add(request, by).await?;
            ok(&federations.refresh(&domain).await?)
        }
        ("POST", [name, "refresh"]) => ok(&federations.refresh(&named(name)?).await?),
        ("DELETE", [name]) => ok(&federations.remove(&named(name)?, by).await?),
        _ => Err(Reject::new(
            StatusCode::NOT_FOUND,
            "no_such_path",
            format!("the admin API has no such path below {PATH}"),
        )),
    }
}

impl AdminClient {
    /// Other meshes whose identities this one accepts.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn federations(&self) -> Result<Vec<FederationInfo>, AdminError> {
        self.get(PATH).await
    }

    /// Accepts another mesh, and fetches its bundle for the first time; a fetch that failed is in the reply.
    ///
    /// # Errors
    /// [`AdminError::Refused`] for a relation that cannot be; nothing was changed.
    pub async fn federate(&self, request: &FederateRequest) -> Result<FederationInfo, AdminError> {
        self.call(Method::POST, PATH, Some(request)).await
    }

    /// Fetches its bundle now; a fetch that failed is in the reply.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if there is no such federation.
    pub async fn refresh_federation(
        &self,
        domain: &TrustDomain,
    ) -> Result<FederationInfo, AdminError> {
        let path = format!("{PATH}/{}/refresh", query::escape(domain.as_str()));
        self.call(Method::POST, &path, None::<&()>).await
    }

    /// Accepts it no more.
    ///
    /// # Errors
    /// [`AdminError::Refused`] if there is no such federation.
    pub async fn end_federation(&self, domain: &TrustDomain) -> Result<(), AdminError> {
        let path = format!("{PATH}/{}", query::escape(domain.as_str()));
        self.call(Method::DELETE, &path, None::<&()>).await
    }
}
