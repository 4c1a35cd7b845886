//! `weft init`.

use crate::cli::InitArgs;
use crate::failure::Failure;

pub(super) async fn run(_args: InitArgs) -> Result<(), Failure> {
    Ok(())
}
