//! Tokens (JWT-SVIDs) for programs on the workload socket, from a control node.

use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::timeout;
use weft_env::BoxFuture;
use weft_transport::Connection;
use weft_wire::{JwtRequest, JwtResponse, PATH_JWT};
use weft_workload::{NoToken, Token, TokenSource};
use zeroize::Zeroizing;

use crate::rpc::{self, CallError};

/// How long a wish waits for a link to a control node.
const LINK: Duration = Duration::from_secs(2);

/// Asks over the link that the sidecar has.
pub(crate) struct ControlTokens {
    /// The connection to a control node, if there is one.
    pub(crate) link: watch::Receiver<Option<Connection>>,
}

impl TokenSource for ControlTokens {
    fn token(&self, audience: Vec<String>) -> BoxFuture<'_, Result<Token, NoToken>> {
        let link = self.link.clone();
        Box::pin(async move {
            let connection = linked(link).await.ok_or_else(|| {
                NoToken::Unavailable(
                    "there is no link to a control node, which makes tokens".into(),
                )
            })?;
            let request = JwtRequest { audience };
            let answer: JwtResponse = rpc::call(&connection, PATH_JWT, &request)
                .await
                .map_err(refused)?;
            let expires = UNIX_EPOCH.checked_add(Duration::from_secs(answer.expires_unix));
            Ok(Token {
                token: Zeroizing::new(answer.token),
                expires: expires.unwrap_or(UNIX_EPOCH),
            })
        })
    }
}

async fn linked(mut link: watch::Receiver<Option<Connection>>) -> Option<Connection> {
    let usable = |link: &Option<Connection>| link.as_ref().is_some_and(|c| !c.is_retired());
    let waited = timeout(LINK, link.wait_for(usable)).await;
    waited.ok()?.ok()?.clone()
}

fn refused(error: CallError) -> NoToken {
    let why = error.to_string();
    match &error {
        CallError::Refused(problem) if problem.code == "bad_audience" => NoToken::BadAudience(why),
        CallError::Refused(problem) if problem.code == "revoked" => NoToken::Denied(why),
        _ => NoToken::Unavailable(why),
    }
}
