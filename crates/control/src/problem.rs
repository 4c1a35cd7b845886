//! Refusals, as they go over the wire: a word for programs and a sentence for people.

use std::time::Duration;

use http::StatusCode;
use weft_ca::{Error as CaError, TokenError};
use weft_certs::{RootPin, SpiffeId};
use weft_wire::Problem;

use crate::registry::Refusal;
use crate::store::StoreError;

/// A [`Problem`] with its status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reject {
    pub(crate) status: StatusCode,
    pub(crate) problem: Problem,
}

impl Reject {
    pub(crate) fn new(status: StatusCode, code: &str, message: impl Into<String>) -> Self {
        Self {
            status,
            problem: Problem {
                code: code.to_owned(),
                message: message.into(),
                retry_after_s: None,
            },
        }
    }

    pub(crate) fn bad_request(code: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    /// Too many at once; whole seconds, rounded up.
    pub(crate) fn rate_limited(rate: u32, after: Duration) -> Self {
        let seconds = after.as_secs() + u64::from(after.subsec_nanos() > 0);
        let mut reject = Self::new(
            StatusCode::TOO_MANY_REQUESTS,
            "rate_limited",
            format!("the authority signs {rate} certificates per second; try again in {seconds} s"),
        );
        reject.problem.retry_after_s = Some(seconds);
        reject
    }

    /// An identity that gets nothing.
    pub(crate) fn revoked(id: &SpiffeId) -> Self {
        let message = format!(
            "{id} is revoked; an operator lets it in again with: weft cert readmit --spiffe-id {id}"
        );
        Self::new(StatusCode::FORBIDDEN, "revoked", message)
    }

    /// A key that is never certified again.
    pub(crate) fn revoked_key(key: &RootPin) -> Self {
        let message = format!("the key {key} is revoked: make a new one");
        Self::new(StatusCode::FORBIDDEN, "revoked_key", message)
    }

    /// The body to send.
    pub(crate) fn body(&self) -> Vec<u8> {
        serde_json::to_vec(&self.problem).unwrap_or_default()
    }
}

impl From<StoreError> for Reject {
    fn from(error: StoreError) -> Self {
        let (status, code) = match &error {
            StoreError::Conflict { .. } => (StatusCode::CONFLICT, "conflict"),
            StoreError::Invalid(_) => (StatusCode::BAD_REQUEST, "invalid"),
            StoreError::DiskFull { .. } => (StatusCode::INSUFFICIENT_STORAGE, "disk_full"),
            StoreError::InUse { .. } | StoreError::Corrupt { .. } | StoreError::Io { .. } => {
                (StatusCode::INTERNAL_SERVER_ERROR, "store")
            }
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<TokenError> for Reject {
    fn from(error: TokenError) -> Self {
        let status = match error {
            TokenError::Unknown | TokenError::Expired { .. } => StatusCode::UNAUTHORIZED,
            TokenError::Used { .. } => StatusCode::CONFLICT,
        };
        Self::new(status, error.reason(), error.to_string())
    }
}

impl From<CaError> for Reject {
    fn from(error: CaError) -> Self {
        let (status, code) = match &error {
            CaError::Csr { .. } => (StatusCode::BAD_REQUEST, "bad_csr"),
            CaError::ReservedIdentity { .. } => (StatusCode::FORBIDDEN, "reserved_identity"),
            CaError::ForeignIdentity { .. } | CaError::NotAWorkload { .. } => {
                (StatusCode::FORBIDDEN, "foreign_identity")
            }
            CaError::OutsideSite { .. } => (StatusCode::FORBIDDEN, "outside_site"),
            CaError::Audience { .. } => (StatusCode::BAD_REQUEST, "bad_audience"),
            CaError::NoJwtKey => (StatusCode::SERVICE_UNAVAILABLE, "no_token_key"),
            CaError::Lifetime { .. } => (StatusCode::BAD_REQUEST, "lifetime"),
            CaError::Transition { .. } | CaError::StillNeeded { .. } => {
                (StatusCode::CONFLICT, "transition")
            }
            CaError::NoSuchSlot { .. } => (StatusCode::NOT_FOUND, "no_such_authority"),
            CaError::OfflineRoot { .. } => (StatusCode::CONFLICT, "offline_root"),
            CaError::KeyPlace(_) | CaError::KeysBusy => {
                (StatusCode::SERVICE_UNAVAILABLE, "keys_out_of_reach")
            }
            CaError::Import { .. } => (StatusCode::BAD_REQUEST, "bad_import"),
            CaError::IssuerEnding { .. } => (StatusCode::SERVICE_UNAVAILABLE, "issuer_ending"),
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "authority"),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<Refusal> for Reject {
    fn from(refusal: Refusal) -> Self {
        let (status, code) = match &refusal {
            Refusal::NotAService(_) => (StatusCode::FORBIDDEN, "not_a_service"),
            Refusal::InstanceTaken { .. } => (StatusCode::CONFLICT, "instance_taken"),
            Refusal::Contested { .. } => (StatusCode::CONFLICT, "instance_contested"),
            Refusal::BadInstance(_) => (StatusCode::BAD_REQUEST, "bad_instance"),
            Refusal::TooManyPorts(_) => (StatusCode::BAD_REQUEST, "too_many_ports"),
            Refusal::Full => (StatusCode::SERVICE_UNAVAILABLE, "full"),
        };
        Self::new(status, code, refusal.to_string())
    }
}
