//! The committed configurations of other proxies, with the run's ports and paths put in.

use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Writes `template` to `file`, each `{{name}}` replaced.
///
/// # Errors
/// Also when a name is left that has no value.
pub(super) fn write(template: &str, values: &[(&str, String)], file: &Path) -> Result<PathBuf> {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    if let Some(at) = text.find("{{") {
        let name: String = text[at..].chars().take_while(|c| *c != '}').collect();
        return Err(Error::File {
            path: file.to_owned(),
            reason: format!("nothing is known for '{name}}}}}'"),
        });
    }
    std::fs::write(file, text).map_err(Error::io(format!("write {}", file.display())))?;
    Ok(file.to_owned())
}
