//! The settings file: a flat YAML map whose fields are the long flags of the role.

use std::fmt;
use std::path::Path;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use serde::Deserialize;
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::failure::Failure;

/// Larger files are not settings but a mistake in the path.
const MAX_BYTES: u64 = 1024 * 1024;

/// One field as written.
pub(super) struct Entry {
    name: String,
    at: Location,
    value: Value,
    value_at: Location,
}

/// Everything that a field can hold. Scalars become text, which the argument's own parser reads.
#[derive(Debug)]
enum Value {
    Scalars(Vec<String>),
    Unusable,
}

/// Reads and parses the file.
pub(super) fn read(path: &Path) -> Result<Vec<Entry>, Failure> {
    let what = format_args!("read the settings file {}", path.display()).to_string();
    let next = "name a readable YAML file with --config";
    let meta = std::fs::metadata(path).map_err(|e| Failure::new(&what, e, next))?;
    if meta.len() > MAX_BYTES {
        return Err(Failure::new(
            &what,
            "it is over 1 MiB, the most that is read",
            next,
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|e| Failure::new(&what, e, next))?;
    if text.lines().all(|line| {
        let line = line.trim();
        line.is_empty() || line.starts_with('#') || line == "---"
    }) {
        return Ok(Vec::new());
    }
    serde_saphyr::from_str::<Spanned<Fields>>(&text)
        .map(|fields| fields.value.0)
        .map_err(|error| {
            let at = error.location().unwrap_or(Location::UNKNOWN);
            let said = error.without_snippet().to_string();
            let reason = said.lines().next().unwrap_or_default();
            fault(path, &at, &readable(reason))
        })
}

/// The parser's reason in the words of this file: what it says of places stands before it already.
fn readable(reason: &str) -> String {
    let reason = reason.split(" at line ").next().unwrap_or_default();
    if let Some(rest) = reason.strip_prefix("duplicate mapping key: ") {
        let name = rest.split(',').next().unwrap_or_default();
        format!("'{name}' is given twice")
    } else if reason.starts_with("expected mapping") {
        "a settings file is a map of fields, such as `state-dir: /var/lib/weft`".to_owned()
    } else {
        format!(
            "this is not YAML ({reason}); close quotes and brackets, and write each field on a line of its own, such as `state-dir: /var/lib/weft`"
        )
    }
}

/// Checks each field against the arguments of `role` and gives argument id and values.
pub(super) fn check(
    role: &Command,
    path: &Path,
    entries: &[Entry],
) -> Result<Vec<(String, Vec<String>)>, Failure> {
    let mut defaults: Vec<(String, Vec<String>)> = Vec::new();
    for entry in entries {
        let arg = known(role, entry).map_err(|reason| fault(path, &entry.at, &reason))?;
        let id = arg.get_id().to_string();
        let values = usable(arg, entry).map_err(|reason| fault(path, &entry.value_at, &reason))?;
        defaults.push((id, values));
    }
    Ok(defaults)
}

/// The argument that a field sets.
fn known<'a>(role: &'a Command, entry: &Entry) -> Result<&'a Arg, String> {
    if ["config", "help", "version"].contains(&entry.name.as_str()) {
        return Err(format!("'{}' cannot be set in a settings file", entry.name));
    }
    role.get_arguments()
        .find(|arg| arg.get_long() == Some(&entry.name))
        .ok_or_else(|| match near(role, &entry.name) {
            Some(near) => format!("unknown field '{}', did you mean '{near}'?", entry.name),
            None => format!(
                "unknown field '{}'; `weft {} --help` lists them",
                entry.name,
                role.get_name()
            ),
        })
}

/// The known field closest to a name: clap's own search for near flags.
fn near(role: &Command, name: &str) -> Option<String> {
    let name = name.replace('_', "-");
    if role
        .get_arguments()
        .any(|arg| arg.get_long() == Some(&name))
    {
        return Some(name);
    }
    let error = role
        .clone()
        .try_get_matches_from([role.get_name().to_owned(), format!("--{name}=")])
        .err()?;
    let near = match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(near) => near,
        ContextValue::Strings(near) => near.first()?,
        _ => return None,
    };
    let near = near.trim_start_matches('-');
    near.split([' ', '=']).next().map(str::to_owned)
}

/// The values of a field, if the argument's parser takes each of them.
fn usable(arg: &Arg, entry: &Entry) -> Result<Vec<String>, String> {
    let name = &entry.name;
    let Value::Scalars(values) = &entry.value else {
        return Err(format!("'{name}' takes a value or a list of values"));
    };
    let single = !matches!(arg.get_action(), clap::ArgAction::Append);
    if single && values.len() != 1 {
        return Err(format!("'{name}' takes one value"));
    }
    for value in values {
        let alone = Command::new("file").arg(arg.clone().required(false));
        let line = ["file".to_owned(), format!("--{name}={value}")];
        if let Err(error) = alone.try_get_matches_from(line) {
            let reason = match error.kind() {
                ErrorKind::ValueValidation => std::error::Error::source(&error)
                    .map_or_else(String::new, |source| format!(": {source}")),
                ErrorKind::InvalidValue => match error.get(ContextKind::ValidValue) {
                    Some(ContextValue::Strings(valid)) => {
                        format!("; use one of {}", valid.join(", "))
                    }
                    _ => String::new(),
                },
                _ => String::new(),
            };
            return Err(format!("'{value}' is not a value for '{name}'{reason}"));
        }
    }
    Ok(values.clone())
}

fn fault(path: &Path, at: &Location, reason: &str) -> Failure {
    Failure::said(format!(
        "{}:{}:{}: {reason}",
        path.display(),
        at.line(),
        at.column()
    ))
}

struct Fields(Vec<Entry>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Fields;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of fields")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<Spanned<String>>()? {
                    let value = map.next_value::<Spanned<Value>>()?;
                    entries.push(Entry {
                        name: name.value,
                        at: name.referenced,
                        value: value.value,
                        value_at: value.referenced,
                    });
                }
                Ok(Fields(entries))
            }
        }
        from.deserialize_map(Read)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Read;
        fn one<E>(text: impl fmt::Display) -> Result<Value, E> {
            Ok(Value::Scalars(vec![text.to_string()]))
        }
        impl<'de> Visitor<'de> for Read {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value or a list of values")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
                one(v)
            }
            fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
                one(v)
            }
            fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
                one(v)
            }
            fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
                one(v)
            }
            fn visit_str<E>(self, v: &str) -> Result<Value, E> {
                one(v)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut all = Vec::new();
                while let Some(value) = seq.next_element::<Value>()? {
                    match value {
                        Value::Scalars(mut values) if values.len() == 1 => all.append(&mut values),
                        _ => return Ok(Value::Unusable),
                    }
                }
                Ok(Value::Scalars(all))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                while map
                    .next_entry::<serde::de::IgnoredAny, serde::de::IgnoredAny>()?
                    .is_some()
                {}
                Ok(Value::Unusable)
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Unusable)
            }
        }
        from.deserialize_any(Read)
    }
}
