//! `weft upgrade`.

use weft_env::Env;

use crate::cli::UpgradeArgs;
use crate::failure::Failure;
use crate::output;

pub(super) async fn run(args: UpgradeArgs) -> Result<(), Failure> {
    let upgraded = weft_proxy::upgrade(&Env::system(), &args.state_dir)
        .await
        .map_err(|error| Failure::because("upgrade", &error))?;
    output::show(args.output.output, &upgraded, || {
        format!(
            "process {} (version {}) has taken over; process {} (version {}) finishes what is under way",
            upgraded.to_pid, upgraded.to_version, upgraded.from_pid, upgraded.from_version
        )
    })
}
