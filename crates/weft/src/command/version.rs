//! `weft version` and `weft completions`.

use clap::CommandFactory;
use serde_json::json;

use crate::cli::{Cli, CompletionsArgs, VersionArgs};
use crate::failure::Failure;
use crate::output;

pub(super) fn run(args: VersionArgs) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let value = json!({"version": version, "protocol": weft_wire::PROTOCOL});
    output::show(args.output.output, &value, || {
        format!("weft {version} (protocol {})", weft_wire::PROTOCOL)
    })
}

pub(super) fn completions(args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "weft", &mut script);
    output::line(&String::from_utf8_lossy(&script))
}
