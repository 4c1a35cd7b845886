//! Asking the control node: what all its commands share.

use std::path::Path;

use weft_control::{AdminClient, AdminError};
use weft_env::Env;

use crate::cli::AdminArgs;
use crate::failure::Failure;

/// A client of the control node whose state directory is named.
pub(super) async fn connect(args: &AdminArgs) -> Result<AdminClient, Failure> {
    let dir: &Path = &args.state_dir;
    AdminClient::connect(&Env::system(), dir)
        .await
        .map_err(failed)
}

/// What the control node said, as it said it: its sentences hold the cause and the next step.
#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
pub(super) fn failed(error: AdminError) -> Failure {
    Failure::said(error.to_string())
}

/// Unix seconds as RFC 3339, or the number if it is no date.
pub(super) fn date(unix: u64) -> String {
    use time::format_description::well_known::Rfc3339;
    i64::try_from(unix)
        .ok()
        .and_then(|unix| time::OffsetDateTime::from_unix_timestamp(unix).ok())
        .and_then(|date| date.format(&Rfc3339).ok())
        .unwrap_or_else(|| unix.to_string())
}

/// Remaining life of a certificate.
pub(super) fn left(seconds: i64) -> String {
    match u64::try_from(seconds) {
        Ok(seconds) => crate::output::span(std::time::Duration::from_secs(seconds)),
        Err(_) => "expired".to_owned(),
    }
}
