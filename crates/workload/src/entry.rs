//! Registration entries: which local processes may have the sidecar's identity.
//!
//! The decision is a pure function over what is known of the caller. Nothing is allowed that no entry allows.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use weft_env::FileIdentity;

/// What is known of a process that asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// User id, as the kernel noted it when the process connected.
    pub uid: u32,
    /// Primary group id, noted then too.
    pub gid: u32,
    /// The systemd unit that it belongs to now.
    pub unit: Option<String>,
    /// The program that it runs now.
    pub program: Option<FileIdentity>,
}

/// One entry: a process that fits every part of it may have the identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Entry {
    /// The user id.
    uid: Option<u32>,
    /// The primary group id.
    gid: Option<u32>,
    /// The systemd unit, such as `envoy.service`.
    unit: Option<String>,
    /// The program's file.
    exe: Option<PathBuf>,
}

/// Text that is not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} does not say who may have the identity: {why}; write uid=N, gid=N, unit=NAME.service or exe=/PATH, several with spaces between"
)]
pub struct EntryError {
    text: String,
    why: &'static str,
}

impl Entry {
    /// Whether this entry allows the caller. `file` tells which file a path is now.
    #[must_use]
    pub fn allows(&self, caller: &Caller, file: impl Fn(&Path) -> Option<FileIdentity>) -> bool {
        let fits = |wanted: Option<u32>, found: u32| wanted.is_none_or(|wanted| wanted == found);
        let unit = match &self.unit {
            Some(unit) => caller.unit.as_ref() == Some(unit),
            None => true,
        };
        // Two that are not known are not the same.
        let exe = match &self.exe {
            Some(path) => caller.program.is_some() && file(path) == caller.program,
            None => true,
        };
        self.says_something()
            && fits(self.uid, caller.uid)
            && fits(self.gid, caller.gid)
            && unit
            && exe
    }

    /// Whether it asks what the process is, and not only who started it.
    pub(crate) fn asks_for_process(&self) -> bool {
        self.unit.is_some() || self.exe.is_some()
    }

    /// An entry without any part would allow everybody.
    fn says_something(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || self.asks_for_process()
    }
}

/// Whether any entry allows the caller.
#[must_use]
pub fn allowed(
    entries: &[Entry],
    caller: &Caller,
    file: impl Fn(&Path) -> Option<FileIdentity>,
) -> bool {
    entries.iter().any(|entry| entry.allows(caller, &file))
}

impl FromStr for Entry {
    type Err = EntryError;

    fn from_str(text: &str) -> Result<Self, EntryError> {
        let fail = |why| EntryError {
            text: text.chars().take(120).collect(),
            why,
        };
        let mut entry = Self::default();
        for part in text.split_ascii_whitespace() {
            let (name, value) = part.split_once('=').ok_or(fail("a part has no '='"))?;
            let again = match name {
                "uid" => entry.uid.replace(number(value).map_err(fail)?).is_some(),
                "gid" => entry.gid.replace(number(value).map_err(fail)?).is_some(),
                "unit" => entry.unit.replace(unit(value).map_err(fail)?).is_some(),
                "exe" => entry.exe.replace(program(value).map_err(fail)?).is_some(),
                _ => return Err(fail("a part is none of uid, gid, unit and exe")),
            };
            if again {
                return Err(fail("a part is given twice"));
            }
        }
        match entry.says_something() {
            true => Ok(entry),
            false => Err(fail("it is empty, and would allow everybody")),
        }
    }
}

fn number(value: &str) -> Result<u32, &'static str> {
    // `parse` would take a sign.
    match value.bytes().all(|b| b.is_ascii_digit()) {
        true => value.parse().map_err(|_| "an id is not a number"),
        false => Err("an id is not a number"),
    }
}

fn unit(value: &str) -> Result<String, &'static str> {
    match [".service", ".scope"]
        .iter()
        .any(|kind| value.len() > kind.len() && value.ends_with(kind))
        && !value.contains('/')
    {
        true => Ok(value.to_owned()),
        false => Err("a unit's name ends in .service or .scope"),
    }
}

fn program(value: &str) -> Result<PathBuf, &'static str> {
    match value.starts_with('/') {
        true => Ok(value.into()),
        false => Err("a program's path begins with '/'"),
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [
            self.uid.map(|uid| format!("uid={uid}")),
            self.gid.map(|gid| format!("gid={gid}")),
            self.unit.as_ref().map(|unit| format!("unit={unit}")),
            self.exe
                .as_ref()
                .map(|exe| format!("exe={}", exe.display())),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        f.write_str(&parts.join(" "))
    }
}

/// The systemd unit in the text of `/proc/PID/cgroup`: the first part of the path below the slices, as
/// systemd reckons it. What comes below may have been named by the unit's own processes.
pub(crate) fn unit_of(cgroups: &str) -> Option<String> {
    let path = |prefix: &str| cgroups.lines().find_map(|line| line.strip_prefix(prefix));
    // cgroup v2; else the hierarchy that systemd keeps beside v1.
    let unified = path("0::").filter(|path| *path != "/");
    let path = unified.or_else(|| {
        cgroups
            .lines()
            .find_map(|line| Some(line.split_once(":name=systemd:")?.1))
    })?;
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let unit = parts.find(|part| !part.ends_with(".slice"))?;
    // `..` leads out of our own cgroup namespace: what follows is not as seen from its root.
    unit_name(unit)
}

fn unit_name(part: &str) -> Option<String> {
    unit(part).ok()
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
