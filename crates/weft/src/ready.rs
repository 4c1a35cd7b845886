//! The ready file: tells whoever started a process that it serves, and on which addresses.

use std::path::Path;

use serde::Serialize;
use weft_env::{Env, Mode};

use crate::failure::Failure;

/// Writes `addresses` as JSON, whole or not at all.
pub(crate) async fn write(
    env: &Env,
    path: &Path,
    addresses: &impl Serialize,
) -> Result<(), Failure> {
    let what = format!("write the ready file {}", path.display());
    let json = serde_json::to_vec(addresses).map_err(|error| Failure::because(&what, &error))?;
    let path = path.to_owned();
    env.disk(move |disk| disk.write_atomic(&path, &json, Mode::Public))
        .await
        .map_err(|error| Failure::because(&what, &error))
}
