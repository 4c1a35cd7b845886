//! `weft token create` and `weft token list`.

use weft_control::{TokenRequest, TokenState};

use super::admin::{connect, date, failed};
use crate::cli::TokenCommand;
use crate::failure::Failure;
use crate::output::{self, Table};

pub(super) async fn run(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Create {
            admin,
            service,
            namespace,
            ttl,
            output,
        } => {
            let request = TokenRequest {
                namespace,
                service,
                // A life below a second is rounded up: 0 would mean a token that nobody can use.
                ttl_s: ttl
                    .as_millis()
                    .div_ceil(1000)
                    .try_into()
                    .unwrap_or(u64::MAX),
            };
            let client = connect(&admin).await?;
            let token = client.create_token(&request).await.map_err(failed)?;
            // The bare token, so that `weft token create … > token` makes a file for --token-file.
            output::show(output.output, &token, || token.token.clone())
        }
        TokenCommand::Revoke { admin, id } => {
            let client = connect(&admin).await?;
            client.revoke_token(&id).await.map_err(failed)?;
            output::line(&format!("token {id} is void"))
        }
        TokenCommand::List { admin, output } => {
            let tokens = connect(&admin).await?.tokens().await.map_err(failed)?;
            output::show(output.output, &tokens, || {
                let mut table = Table::new(
                    &["ID", "IDENTITY", "STATE", "EXPIRES", "USED BY"],
                    "no token was made in the last day; make one with: weft token create --service NAME",
                );
                for token in &tokens {
                    let state = match token.state {
                        TokenState::Unused => "unused",
                        TokenState::Used => "used",
                        TokenState::Expired => "expired",
                        TokenState::Revoked => "revoked",
                    };
                    table.row([
                        token.id.clone(),
                        token.spiffe_id.clone(),
                        state.to_owned(),
                        date(token.expires_unix),
                        token.used_by.clone().unwrap_or_default(),
                    ]);
                }
                table.render()
            })
        }
    }
}
