//! Settings of the long-running roles, from one source: the clap arguments of each role.
//!
//! A flag `--state-dir` is also the environment variable `WEFT_STATE_DIR` and the field `state-dir` of
//! the YAML file named by `--config`. Precedence: flag, environment, file, built-in default. The file is
//! merged by making its values the defaults of the arguments before the command line is parsed, so one
//! parser checks all three and a new argument needs no second declaration.

mod app;
mod control;
mod delegate;
mod file;
mod log;
mod path;
mod process;
mod sidecar;
mod sidecars;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ContextValue};
use clap::{ArgMatches, Command};

use app::host_port;
pub(crate) use app::{AppSpec, TcpListen};
pub(crate) use control::ControlSettings;
pub(crate) use delegate::DelegateSettings;
pub(crate) use log::LogSettings;
pub(crate) use path::{PeerProfileSpec, ProfileName, WireSettings};
pub(crate) use process::ProcessSettings;
pub(crate) use sidecar::{JoinSettings, SidecarSettings};
pub(crate) use sidecars::Sidecars;

use crate::failure::Failure;

/// What stopped the command line from being understood.
pub(crate) enum ParseError {
    /// clap's own report: wrong usage, or help and version that were asked for.
    Clap(clap::Error),
    /// The settings file cannot be read or used.
    Settings(Failure),
}

/// Parses `args` with the settings file of the subcommand, if it takes and names one, as defaults. Once for each file: only
/// sidecars take several.
pub(crate) fn parse(command: &Command, args: &[OsString]) -> Result<Vec<ArgMatches>, ParseError> {
    let matches = |command: Command| {
        command
            .try_get_matches_from(args)
            .map_err(|error| ParseError::Clap(blamed(error, args, |name| std::env::var(name).ok())))
    };
    let (role, paths) = named_files(command, args).unwrap_or_default();
    if paths.is_empty() {
        return Ok(vec![matches(command.clone())?]);
    }
    let with = |path| matches(with_file(command, &role, path).map_err(ParseError::Settings)?);
    paths.iter().map(|path| with(path)).collect()
}

/// The command with what a settings file says as the defaults of a role.
fn with_file(command: &Command, role: &str, path: &Path) -> Result<Command, Failure> {
    let entries = file::read(path)?;
    let sub = command
        .find_subcommand(role)
        .expect("the subcommand was found by the first pass");
    let defaults = file::check(sub, path, &entries)?;
    Ok(command.clone().mut_subcommand(role, |mut sub| {
        for (id, values) in defaults {
            sub = sub.mut_arg(id, |arg| arg.required(false).default_values(values));
        }
        sub
    }))
}

/// The report, with the environment's variable in place of a flag that nobody wrote: clap names the flag wherever
/// the value came from.
fn blamed(
    mut error: clap::Error,
    args: &[OsString],
    variable: impl Fn(&str) -> Option<String>,
) -> clap::Error {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let (Some(argument), Some(value)) = (
        text(ContextKind::InvalidArg),
        text(ContextKind::InvalidValue),
    ) else {
        return error;
    };
    let Some(long) = argument
        .strip_prefix("--")
        .and_then(|rest| rest.split([' ', '=', '[']).next())
    else {
        return error;
    };
    let flag = format!("--{long}");
    let written = args
        .iter()
        .filter_map(|arg| arg.to_str())
        .any(|arg| arg.split('=').next() == Some(&flag));
    let name = format!("WEFT_{}", long.replace('-', "_").to_uppercase());
    if !written && variable(&name).is_some_and(|set| set.split(',').any(|one| one == value)) {
        error.insert(
            ContextKind::InvalidArg,
            ContextValue::String(format!("{name} in the environment")),
        );
    }
    error
}

/// The subcommand and each `--config` (or `WEFT_CONFIG`), found by a first pass that overlooks errors.
fn named_files(command: &Command, args: &[OsString]) -> Option<(String, Vec<PathBuf>)> {
    let matches = command
        .clone()
        .ignore_errors(true)
        .try_get_matches_from(args)
        .ok()?;
    let (role, sub) = matches.subcommand()?;
    let paths = sub.try_get_many::<PathBuf>("config").ok()??;
    Some((role.to_owned(), paths.cloned().collect()))
}

/// Where a control node keeps its state if nothing is said.
pub(crate) fn control_state_dir() -> PathBuf {
    default_state_dir().join("control")
}

/// Where the delegate of a site keeps its state if nothing is said.
pub(crate) fn delegate_state_dir() -> PathBuf {
    default_state_dir().join("delegate")
}

/// Where a sidecar keeps its state if nothing is said: beside a control node's, so that a machine can have
/// both.
pub(crate) fn sidecar_state_dir() -> PathBuf {
    default_state_dir().join("sidecar")
}

/// `/var/lib/weft` for root, the user's state folder (XDG base directory specification) otherwise.
fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/weft");
    }
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match (set("XDG_STATE_HOME"), set("HOME")) {
        (Some(state), _) => PathBuf::from(state).join("weft"),
        (None, Some(home)) => PathBuf::from(home).join(".local/state/weft"),
        (None, None) => PathBuf::from(".weft"),
    }
}

/// A duration as the Gateway API writes it (GEP-2257), such as `10m`, `1h30m`, `500ms`.
pub(crate) fn duration(text: &str) -> Result<std::time::Duration, String> {
    text.parse::<weft_resources::GatewayDuration>()
        .map(|duration| duration.value())
        .map_err(|error| error.to_string())
}

/// A whole number within a range.
pub(crate) fn whole<N>(text: &str, range: std::ops::RangeInclusive<N>) -> Result<N, String>
where
    N: std::str::FromStr + PartialOrd + std::fmt::Display,
{
    text.parse()
        .ok()
        .filter(|number| range.contains(number))
        .ok_or_else(|| {
            format!(
                "it must be a whole number from {} to {}",
                range.start(),
                range.end()
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Role};
    use clap::{CommandFactory, FromArgMatches};
    use std::io::Write;

    fn sidecar(file: Option<&str>, args: &[&str]) -> Result<SidecarSettings, String> {
        let mut all: Vec<OsString> = vec!["weft".into(), "sidecar".into()];
        let mut named = tempfile::NamedTempFile::new().unwrap();
        if let Some(text) = file {
            named.write_all(text.as_bytes()).unwrap();
            all.push("--config".into());
            all.push(named.path().into());
        }
        all.extend(args.iter().map(OsString::from));
        match parse(&Cli::command(), &all) {
            Ok(matches) => match Cli::from_arg_matches(&matches[0]).unwrap().command {
                Role::Sidecar(mut sidecars) => Ok(sidecars.each.remove(0)),
                _ => panic!("expected the sidecar"),
            },
            Err(ParseError::Clap(error)) => Err(error.to_string()),
            Err(ParseError::Settings(failure)) => Err(failure
                .to_string()
                .replace(&named.path().display().to_string(), "FILE")),
        }
    }

    #[test]
    fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
        let none = sidecar(None, &[]).unwrap();
        assert_eq!(none.outbound.to_string(), "127.0.0.1:15001");
        let text = "outbound: 127.0.0.1:7\nmetrics: 127.0.0.1:8\napp:\n  - 127.0.0.1:8080\n  - tcp/127.0.0.1:5432\nworkers: 3\n";
        let file = sidecar(Some(text), &[]).unwrap();
        assert_eq!(file.outbound.to_string(), "127.0.0.1:7");
        assert_eq!(file.app.len(), 2);
        assert_eq!(file.workers, 3);
        let flag = sidecar(Some(text), &["--outbound", "127.0.0.1:9"]).unwrap();
        assert_eq!(flag.outbound.to_string(), "127.0.0.1:9");
        assert_eq!(flag.metrics.to_string(), "127.0.0.1:8");
    }

    #[test]
    fn faults_of_the_file_name_line_and_column() {
        let cases = [
            (
                "metrics: 127.0.0.1:8\nstate-dri: /x\n",
                "FILE:2:1: unknown field 'state-dri', did you mean 'state-dir'?",
            ),
            (
                "outbound: nowhere\n",
                "FILE:1:11: 'nowhere' is not a value for 'outbound'",
            ),
            (
                "workers: many\n",
                "FILE:1:10: 'many' is not a value for 'workers': it must be a whole number from 0 to 64",
            ),
            (
                "config: /other\n",
                "FILE:1:1: 'config' cannot be set in a settings file",
            ),
            (
                "app: {a: b}\n",
                "FILE:1:6: 'app' takes a value or a list of values",
            ),
            ("- a\n", "FILE:1:1: a settings file is a map of fields"),
            ("workers: 1\napp: [127.0.0.1:8080\n", "this is not YAML ("),
            ("state-dir: \"/var\n", "close quotes and brackets"),
            (
                "workers: 1\nworkers: 2\n",
                "FILE:2:1: 'workers' is given twice",
            ),
        ];
        for (text, expected) in cases {
            let error = sidecar(Some(text), &[]).unwrap_err();
            assert!(error.contains(expected), "{text:?} gave {error:?}");
        }
    }

    #[test]
    fn a_wrong_value_is_blamed_on_whom_it_came_from() {
        let args: Vec<OsString> = ["weft", "sidecar", "--drain=soon"].map(Into::into).into();
        let report = |args: &[OsString], set: Option<&str>| {
            let error = Cli::command()
                .try_get_matches_from(args_with_drain(args))
                .unwrap_err();
            blamed(error, args, |name| {
                set.filter(|_| name == "WEFT_DRAIN").map(str::to_owned)
            })
            .to_string()
        };
        // What the environment holds reaches clap's report as if it were a flag's.
        fn args_with_drain(args: &[OsString]) -> Vec<OsString> {
            let mut all = args.to_vec();
            if all.len() == 2 {
                all.push("--drain=soon".into());
            }
            all
        }
        assert!(report(&args, Some("soon")).contains("'--drain <DURATION>'"));
        assert!(report(&args[..2], None).contains("'--drain <DURATION>'"));
        let from_environment = report(&args[..2], Some("soon"));
        assert!(
            from_environment.contains("invalid value 'soon' for 'WEFT_DRAIN in the environment'"),
            "{from_environment}"
        );
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        assert_eq!(sidecar(Some("# nothing\n"), &[]).unwrap().workers, 0);
    }

    #[test]
    fn every_setting_has_its_environment_variable() {
        let command = Cli::command();
        for role in ["control", "sidecar"] {
            let sub = command.find_subcommand(role).unwrap();
            for arg in sub.get_arguments() {
                let long = arg.get_long().expect("settings are long flags");
                let expected = format!("WEFT_{}", long.replace('-', "_").to_uppercase());
                assert_eq!(
                    arg.get_env()
                        .map(|name| name.to_string_lossy().into_owned()),
                    Some(expected),
                    "{role} --{long}"
                );
            }
        }
    }
}
