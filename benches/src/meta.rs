//! Where, when and with what something was measured.

use std::path::Path;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::macros::format_description;

use crate::error::{Error, Result};
use crate::pairs;
use crate::process::{Place, find};

/// Figures, and what must be known to read them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Measured<T> {
    pub(crate) meta: Meta,
    pub(crate) found: T,
}

/// The circumstances of a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// When it began, UTC.
    pub(crate) date: String,
    /// What was called; more than one where a measurement was added to.
    pub(crate) commands: Vec<String>,
    /// Processor, number of CPUs, memory.
    pub(crate) machine: String,
    pub(crate) kernel: String,
    /// Name and version of everything that took part.
    pub(crate) versions: Vec<(String, String)>,
    /// Load average over a minute, before and after.
    pub(crate) load: (f64, f64),
}

impl Meta {
    /// As it is now, at the begin of a measurement.
    pub(crate) async fn now() -> Self {
        let load = load();
        Self {
            date: date(),
            commands: vec![command(std::env::args())],
            machine: machine(),
            kernel: read("/proc/sys/kernel/osrelease"),
            versions: versions().await,
            load: (load, load),
        }
    }

    /// Closes a measurement.
    pub(crate) fn with<T>(mut self, found: T) -> Measured<T> {
        self.load.1 = load();
        Measured { meta: self, found }
    }

    /// Puts the begin of an earlier measurement before this one, which adds to it.
    pub(crate) fn after(mut self, earlier: Self) -> Self {
        let mut commands = earlier.commands;
        commands.append(&mut self.commands);
        Self {
            date: earlier.date,
            commands,
            load: (earlier.load.0, self.load.1),
            ..self
        }
    }
}

impl<T: for<'de> Deserialize<'de>> Measured<T> {
    /// What was written before.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read(file).map_err(Error::io(format!("read {}", file.display())))?;
        serde_json::from_slice(&text).map_err(|error| Error::File {
            path: file.to_owned(),
            reason: error.to_string(),
        })
    }
}

impl<T: Serialize> Measured<T> {
    /// Writes it.
    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string(self).map_err(|error| Error::Protocol(error.to_string()));
        std::fs::write(file, text?).map_err(Error::io(format!("write {}", file.display())))
    }
}

fn date() -> String {
    let format = format_description!("[year]-[month]-[day] [hour]:[minute] UTC");
    let now = OffsetDateTime::now_utc();
    now.format(format).unwrap_or_else(|_| now.to_string())
}

/// The command as anyone would type it: without this machine's folders.
fn command(args: impl Iterator<Item = String>) -> String {
    let mut words = vec!["weft-benches".to_owned()];
    let mut args = args.skip(1);
    while let Some(word) = args.next() {
        match word.as_str() {
            "--json" | "--weft" | "--netsim" | "--out" => drop(args.next()),
            _ => words.push(word),
        }
    }
    words.join(" ")
}

fn machine() -> String {
    let cpus = read("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let count = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = read("/proc/meminfo");
    let kib = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|text| text.split_ascii_whitespace().next()?.parse::<u64>().ok());
    format!(
        "{}, {count} CPUs, {} GiB",
        model.map_or("unknown processor", |(_, model)| model.trim()),
        kib.unwrap_or_default().div_ceil(1024 * 1024)
    )
}

fn load() -> f64 {
    let text = read("/proc/loadavg");
    let first = text.split_ascii_whitespace().next();
    first.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

async fn versions() -> Vec<(String, String)> {
    let mut versions = Vec::new();
    let mut add = |name: &str, version: Option<String>| {
        let version = version.unwrap_or_else(|| "not installed".to_owned());
        versions.push((name.to_owned(), version));
    };
    let commit = said("git", &["rev-parse", "--short", "HEAD"]).await;
    let weft = env!("CARGO_PKG_VERSION");
    add(
        "weft",
        Some(commit.map_or(weft.to_owned(), |commit| format!("{weft} ({commit})"))),
    );
    let envoy = pairs::envoy_program().ok();
    let envoy = match envoy {
        Some(program) => words(&program, &["--version"]).await,
        None => None,
    };
    add("Envoy", envoy.as_deref().and_then(envoy_version));
    add(
        "nginx",
        said("nginx", &["-v"]).await.map(|text| last(&text, '/')),
    );
    let haproxy = said("haproxy", &["-v"]).await;
    add(
        "HAProxy",
        haproxy.and_then(|text| text.split(' ').nth(2).map(str::to_owned)),
    );
    add("rustc", said("rustc", &["--version"]).await);
    versions
}

/// `… version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL`
fn envoy_version(text: &str) -> Option<String> {
    let (_, version) = text.split_once("version: ")?;
    version.split('/').nth(1).map(str::to_owned)
}

fn last(text: &str, separator: char) -> String {
    text.rsplit(separator).next().unwrap_or(text).to_owned()
}

/// The first line that a program says, wherever.
pub(crate) async fn said(program: &str, args: &[&str]) -> Option<String> {
    words(&find(program)?, args).await
}

async fn words(program: &Path, args: &[&str]) -> Option<String> {
    let mut command = Place::here().command(program);
    let output = command.args(args).output().await.ok()?;
    let both = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&both).into_owned();
    let line = text.lines().find(|line| !line.trim().is_empty())?;
    output.status.success().then(|| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_no_folder_of_this_machine() {
        let args = "/home/x/weft-benches lossy --seeds 2 --json /home/x/l.json --add";
        let args = args.split(' ').map(str::to_owned);
        assert_eq!(command(args), "weft-benches lossy --seeds 2 --add");
    }

    #[test]
    fn envoy_says_its_version_among_others() {
        let said = "/opt/envoy  version: 1a2b/1.40.0/Clean/RELEASE/BoringSSL";
        assert_eq!(envoy_version(said).as_deref(), Some("1.40.0"));
    }
}
