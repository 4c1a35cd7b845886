//! `weft control`.

use weft_control::ControlConfig;

use crate::failure::Failure;
use crate::settings::ControlSettings;
use crate::signals;

pub(super) async fn run(settings: ControlSettings) -> Result<(), Failure> {
    let env = settings.process.start()?;
    let stop = signals::stop_token(&env)?;
    let mut config = ControlConfig::new(settings.state_dir);
    config.mesh_listen = settings.listen;
    config.metrics_listen = Some(settings.metrics);
    config.key_exchange = settings.wire.key_exchange();
    config.tcp_fallback = settings.wire.tcp_fallback();
    config.drain_deadline = settings.drain;
    config.ready_file = settings.process.ready_file;
    config.bundle = settings.bundle.endpoint();
    config.attest = settings.attest;
    config.trust_bundle = settings.trust_bundle;
    config.keys = super::secret::of_keys(&settings.keys).await?;
    weft_control::run(&env, config, stop)
        .await
        .map_err(|error| Failure::because("control", &error))
}
