//! The JWT part of the Workload API.

mod cache;
mod source;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde_json::Value as Json;
use tonic::{Response, Status};
use weft_certs::{Identity, SpiffeId, verify_jwt_svid};

use crate::proto::workload::{
    JwtBundlesResponse, JwtSvid, JwtSvidRequest, JwtSvidResponse, ValidateJwtSvidRequest,
    ValidateJwtSvidResponse,
};
use crate::proto::{Kind, ListValue, Struct, Value};
use crate::session::Session;
use cache::TokenCache;
pub use source::{NoToken, Token, TokenSource};

/// Tokens for the callers of a socket.
pub(crate) struct Tokens {
    source: Arc<dyn TokenSource>,
    cache: Mutex<TokenCache>,
}

impl Tokens {
    pub(crate) fn new(source: Arc<dyn TokenSource>) -> Self {
        Self {
            source,
            cache: Mutex::default(),
        }
    }

    async fn get(
        &self,
        audience: Vec<String>,
        identity: &Identity,
        now: SystemTime,
    ) -> Result<Token, Status> {
        let kept = self.cache().get(&audience, now);
        // Its key may have been taken out of the bundle since.
        let good = |token: &Token| {
            let first = audience.first().map_or("", String::as_str);
            verify_jwt_svid(&token.token, first, &identity.bundles, now).is_ok()
        };
        if let Some(kept) = kept.filter(good) {
            return Ok(kept);
        }
        let made = self.source.token(audience.clone()).await;
        let made = made.map_err(|no| match no {
            NoToken::BadAudience(why) => Status::invalid_argument(why),
            NoToken::Denied(why) => Status::permission_denied(why),
            NoToken::Unavailable(why) => Status::unavailable(why),
        })?;
        self.cache().put(audience, made.clone(), now);
        Ok(made)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, TokenCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `FetchJWTSVID`.
pub(crate) async fn fetch(
    session: Arc<Session>,
    request: JwtSvidRequest,
) -> Result<Response<JwtSvidResponse>, Status> {
    let mut audience = request.audience;
    audience.sort_unstable();
    audience.dedup();
    if audience.is_empty() || audience.iter().any(String::is_empty) {
        return Err(Status::invalid_argument(
            "audience must be given, and not be empty",
        ));
    }
    let identity = session.admit().await?;
    let id = identity.svid.id();
    check_wanted(&request.spiffe_id, id)?;
    let now = session.shared.env.wall();
    let token = session.shared.tokens.get(audience, &identity, now).await?;
    Ok(Response::new(JwtSvidResponse {
        svids: vec![JwtSvid {
            spiffe_id: id.to_string(),
            svid: token.token.to_string(),
            hint: String::new(),
        }],
    }))
}

/// A caller may name the identity that it wants a token of.
fn check_wanted(wanted: &str, id: &SpiffeId) -> Result<(), Status> {
    if wanted.is_empty() {
        return Ok(());
    }
    let wanted = SpiffeId::parse(wanted).map_err(|e| Status::invalid_argument(e.to_string()))?;
    match wanted == *id {
        true => Ok(()),
        false => Err(Status::permission_denied(format!(
            "this workload is {id} and not {wanted}"
        ))),
    }
}

/// The keys that tokens are checked with, of each trust domain.
pub(crate) fn bundles(identity: &Identity) -> JwtBundlesResponse {
    let bundles = identity.bundles.iter().map(|bundle| {
        let domain = bundle.trust_domain.id().to_string();
        (domain, bundle.to_jwt_jwks().to_string().into())
    });
    JwtBundlesResponse {
        bundles: bundles.collect(),
    }
}

/// `ValidateJWTSVID`.
pub(crate) async fn validate(
    session: Arc<Session>,
    request: ValidateJwtSvidRequest,
) -> Result<Response<ValidateJwtSvidResponse>, Status> {
    if request.audience.is_empty() || request.svid.is_empty() {
        return Err(Status::invalid_argument("audience and svid must be given"));
    }
    session.permit().await?;
    let (bundles, now) = (
        Arc::clone(&session.shared.identity.current().bundles),
        session.shared.env.wall(),
    );
    let svid = verify_jwt_svid(&request.svid, &request.audience, &bundles, now)
        .map_err(|error| Status::invalid_argument(error.to_string()))?;
    let claims = svid.claims.into_iter();
    Ok(Response::new(ValidateJwtSvidResponse {
        spiffe_id: svid.id.to_string(),
        claims: Some(Struct {
            fields: claims.map(|(name, json)| (name, value(json))).collect(),
        }),
    }))
}

/// JSON in protobuf's form. Numbers become floating point there.
fn value(json: Json) -> Value {
    let kind = match json {
        Json::Null => Kind::Null(0),
        Json::Bool(flag) => Kind::Bool(flag),
        Json::Number(number) => Kind::Number(number.as_f64().unwrap_or_default()),
        Json::String(text) => Kind::Text(text),
        Json::Array(list) => Kind::List(ListValue {
            values: list.into_iter().map(value).collect(),
        }),
        Json::Object(members) => Kind::Struct(Struct {
            fields: members
                .into_iter()
                .map(|(name, json)| (name, value(json)))
                .collect(),
        }),
    };
    Value { kind: Some(kind) }
}
