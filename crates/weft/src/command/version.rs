//! `weft version` and `weft completions`.

use clap::{Command, CommandFactory};
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
    clap_complete::generate(
        args.shell,
        &mut visible(&Cli::command()),
        "weft",
        &mut script,
    );
    output::line(&String::from_utf8_lossy(&script))
}

/// The command without what is hidden: the generator would offer that, too.
fn visible(command: &Command) -> Command {
    let shown = Command::new(command.get_name().to_owned())
        .args(command.get_arguments().filter(|arg| !arg.is_hide_set()))
        .subcommands(
            command
                .get_subcommands()
                .filter(|sub| !sub.is_hide_set())
                .map(visible),
        );
    match command.get_about() {
        Some(about) => shown.about(about.clone()),
        None => shown,
    }
}
