//! `weft control`.

use crate::failure::Failure;
use crate::settings::ControlSettings;

pub(super) async fn run(settings: ControlSettings) -> Result<(), Failure> {
    settings.log.start()?;
    Ok(())
}
