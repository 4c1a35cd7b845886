//! Settings of the sidecars of one process: one settings file for each, or none and one sidecar.

use std::fmt::Display;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, Command, Error, FromArgMatches};

use super::SidecarSettings;
use crate::failure::Failure;

/// All sidecars of a process, in the order of their files. Never empty.
#[derive(Debug, Clone)]
pub(crate) struct Sidecars {
    pub(crate) each: Vec<SidecarSettings>,
}

impl clap::Args for Sidecars {
    fn augment_args(command: Command) -> Command {
        SidecarSettings::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        SidecarSettings::augment_args_for_update(command)
    }
}

impl FromArgMatches for Sidecars {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let one = SidecarSettings::from_arg_matches(matches)?;
        Ok(Self { each: vec![one] })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Sidecars {
    /// What the sidecars are called before they have identities: the names of their files without folder and ending, if
    /// these differ.
    pub(crate) fn names(&self) -> Vec<String> {
        let files = &self.each[0].config;
        let short: Vec<String> = files.iter().map(|file| stem(file)).collect();
        let differ = short
            .iter()
            .enumerate()
            .all(|(at, name)| !short[..at].contains(name));
        match differ {
            true => short,
            false => files
                .iter()
                .map(|file| file.display().to_string())
                .collect(),
        }
    }

    /// Checks that what belongs to the process is the same for all.
    pub(crate) fn agree(&self) -> Result<(), Failure> {
        let (first, rest) = self.each.split_first().expect("there is one at least");
        for (other, settings) in rest.iter().enumerate() {
            let pair = (&first.config[0], &first.config[other + 1]);
            same("workers", first.workers, settings.workers, pair)?;
            same("takeover", first.takeover, settings.takeover, pair)?;
            let (log, theirs) = (&first.process.log, &settings.process.log);
            same("log-level", &log.log_level, &theirs.log_level, pair)?;
            let form = |log: &super::LogSettings| format!("{:?}", log.log_format).to_lowercase();
            same("log-format", form(log), form(theirs), pair)?;
            let offset = |one: &SidecarSettings| one.process.clock_offset;
            same("clock-offset", offset(first), offset(settings), pair)?;
        }
        Ok(())
    }
}

fn stem(file: &Path) -> String {
    let stem = file.file_stem().unwrap_or(file.as_os_str());
    stem.to_string_lossy().into_owned()
}

fn same<T: PartialEq + Display>(
    name: &str,
    one: T,
    other: T,
    files: (&PathBuf, &PathBuf),
) -> Result<(), Failure> {
    if one == other {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "sidecar: `{name}` is that of the process, and is {one} with {} and {other} with {}: leave it out of the files and pass --{name} once",
        files.0.display(),
        files.1.display()
    )))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use clap::{CommandFactory, FromArgMatches};

    use super::*;
    use crate::cli::{Cli, Role};
    use crate::settings::{ParseError, parse};

    /// The sidecars of these files, whose names are put into a folder.
    fn sidecars(files: &[(&str, &str)], args: &[&str]) -> Sidecars {
        let dir = tempfile::tempdir().unwrap();
        let mut all: Vec<OsString> = vec!["weft".into(), "sidecar".into()];
        for (name, text) in files {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            all.extend(["--config".into(), path.into()]);
        }
        all.extend(args.iter().map(OsString::from));
        let matches = match parse(&Cli::command(), &all) {
            Ok(matches) => matches,
            Err(ParseError::Clap(error)) => panic!("{error}"),
            Err(ParseError::Settings(failure)) => panic!("{failure}"),
        };
        let mut each = Vec::new();
        for one in matches {
            match Cli::from_arg_matches(&one).unwrap().command {
                Role::Sidecar(mut sidecars) => each.append(&mut sidecars.each),
                _ => panic!("expected the sidecar"),
            }
        }
        Sidecars { each }
    }

    #[test]
    fn each_file_is_a_sidecar_and_flags_hold_for_all() {
        let files = [
            (
                "orders.yaml",
                "outbound: 127.0.0.1:1\napp: 127.0.0.1:8080\n",
            ),
            ("invoices.yaml", "outbound: 127.0.0.1:2\n"),
        ];
        let two = sidecars(&files, &["--control=10.0.0.1:15008", "--workers=2"]);
        let outbound: Vec<String> = two
            .each
            .iter()
            .map(|one| one.outbound.to_string())
            .collect();
        assert_eq!(outbound, ["127.0.0.1:1", "127.0.0.1:2"]);
        assert_eq!((two.each[0].app.len(), two.each[1].app.len()), (1, 0));
        for one in &two.each {
            assert_eq!(one.control, ["10.0.0.1:15008"]);
            assert_eq!(one.workers, 2);
        }
        assert_eq!(two.names(), ["orders", "invoices"]);
        two.agree().unwrap();
        // A flag wins over every file.
        let flag = sidecars(&files, &["--outbound=127.0.0.1:9"]);
        assert!(flag.each.iter().all(|one| one.outbound.port() == 9));
    }

    #[test]
    fn files_of_one_name_are_told_apart_by_their_folders() {
        let two = sidecars(&[("a/weft.yaml", ""), ("b/weft.yaml", "")], &[]);
        let names = two.names();
        assert!(
            names[0].ends_with("a/weft.yaml") && names[1].ends_with("b/weft.yaml"),
            "{names:?}"
        );
    }

    #[test]
    fn what_belongs_to_the_process_is_said_once() {
        for (text, said) in [
            (
                "workers: 3\n",
                "`workers` is that of the process, and is 0 with",
            ),
            (
                "log-level: debug\n",
                "`log-level` is that of the process, and is info with",
            ),
            (
                "log-format: json\n",
                "`log-format` is that of the process, and is text with",
            ),
            ("takeover: true\n", "pass --takeover once"),
        ] {
            let two = sidecars(&[("a.yaml", ""), ("b.yaml", text)], &[]);
            let failure = two.agree().unwrap_err().to_string();
            assert!(failure.contains(said), "{failure}");
            // Both may say the same.
            sidecars(&[("a.yaml", text), ("b.yaml", text)], &[])
                .agree()
                .unwrap();
        }
    }
}
