//! `weft control`.

use std::sync::Arc;

use weft_control::ControlConfig;
use weft_env::{Env, SystemPlatform};

use crate::failure::Failure;
use crate::settings::ControlSettings;
use crate::signals;

pub(super) async fn run(settings: ControlSettings) -> Result<(), Failure> {
    settings.log.start()?;
    let platform = SystemPlatform::new().with_wall_offset(settings.clock_offset);
    let env = Env::new(Arc::new(platform));
    let stop = signals::stop_token(&env)?;
    let mut config = ControlConfig::new(settings.state_dir);
    config.mesh_listen = settings.listen;
    config.metrics_listen = Some(settings.metrics);
    config.drain_deadline = settings.drain;
    config.ready_file = settings.ready_file;
    weft_control::run(&env, config, stop)
        .await
        .map_err(|error| Failure::because("control", &error))
}
