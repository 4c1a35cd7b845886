//! `weft delegate`, and `weft ca delegate …`.

use std::time::Duration;

use weft_control::{
    ControlConfig, DelegateConfig, DelegateCreate, DelegateCreated, DelegateInfo, DelegateState,
};

use super::admin::{connect, date, failed};
use super::secret;
use crate::cli::DelegateCommand;
use crate::failure::Failure;
use crate::output::{self, Table};
use crate::settings::DelegateSettings;
use crate::signals;

pub(super) async fn run(settings: DelegateSettings) -> Result<(), Failure> {
    if settings.control.is_empty() {
        return Err(Failure::usage(
            "delegate: no control node is named; pass --control HOST:PORT, set WEFT_CONTROL, or write `control:` into the file of --config",
        ));
    }
    let env = settings.process.start()?;
    let stop = signals::stop_token(&env)?;
    let token = match &settings.token_file {
        Some(file) => Some(secret::token(file).await?),
        None => None,
    };
    let mut config = ControlConfig::new(settings.state_dir);
    config.mesh_listen = settings.listen;
    config.metrics_listen = Some(settings.metrics);
    config.key_exchange = settings.wire.key_exchange();
    config.tcp_fallback = settings.wire.tcp_fallback();
    config.drain_deadline = settings.drain;
    config.ready_file = settings.process.ready_file;
    config.keys = secret::of_keys(&settings.keys).await?;
    config.delegate = Some(DelegateConfig {
        control: settings.control,
        trust_domain: settings.trust_domain,
        pin: settings.pin,
        token,
    });
    weft_control::run(&env, config, stop)
        .await
        .map_err(|error| Failure::because("delegate", &error))
}

/// `weft ca delegate …`
pub(super) async fn command(command: DelegateCommand) -> Result<(), Failure> {
    match command {
        DelegateCommand::Create {
            admin,
            site,
            allow,
            ttl,
            token_ttl,
            output,
        } => {
            let seconds = |ttl: Duration| ttl.as_millis().div_ceil(1000).try_into();
            let request = DelegateCreate {
                site,
                permitted: allow,
                ttl_s: seconds(ttl).unwrap_or(u64::MAX),
                token_ttl_s: seconds(token_ttl).unwrap_or(u64::MAX),
            };
            let client = connect(&admin).await?;
            let made = client.create_delegate(&request).await.map_err(failed)?;
            // The bare token, so that `… > token` makes a file for --token-file.
            output::show(output.output, &made, || created(&made))
        }
        DelegateCommand::List { admin, output } => {
            let all = connect(&admin).await?.delegates().await.map_err(failed)?;
            output::show(output.output, &all, || table(&all))
        }
        DelegateCommand::Revoke {
            admin,
            site,
            output,
        } => {
            let client = connect(&admin).await?;
            let revoked = client.revoke_delegate(&site).await.map_err(failed)?;
            output::show(output.output, &revoked, || {
                format!(
                    "the delegate of site {site} is revoked, with all that it issued: {}\n",
                    revoked.target
                )
            })
        }
    }
}

fn created(made: &DelegateCreated) -> String {
    made.token.clone()
}

fn table(all: &[DelegateInfo]) -> String {
    let mut table = Table::new(
        &["SITE", "STATE", "ENDS", "HEARD", "RECORDS", "KEY", "FOR"],
        "no site has a delegate; authorize one with: weft ca delegate create --site NAME --allow ID",
    );
    let when = |unix: Option<u64>| unix.map_or_else(String::new, date);
    for delegate in all {
        let state = match delegate.state {
            DelegateState::Awaited => "awaited",
            DelegateState::Active => "active",
            DelegateState::Ended => "ended",
            DelegateState::Revoked => "revoked",
        };
        table.row([
            delegate.site.clone(),
            state.to_owned(),
            when(delegate.not_after_unix),
            when(delegate.heard_unix),
            delegate.records.to_string(),
            delegate.key.clone().unwrap_or_default(),
            delegate.permitted.join(" "),
        ]);
    }
    table.render()
}
