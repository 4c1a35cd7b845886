//! Reads what `weft apply -f` names, and shows faults the way compilers do.

use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

use weft_resources::{Resource, ResourceError, parse_yaml};

use crate::failure::Failure;
use crate::output::counted;

/// Larger inputs are not resources but a mistake in the path.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// A text and where it came from.
struct Input {
    origin: String,
    text: String,
}

/// The resources of all files, directories and standard input, or every fault in them.
pub(super) fn resources(paths: &[PathBuf]) -> Result<Vec<Resource>, Failure> {
    let mut inputs = Vec::new();
    for path in paths {
        read(path, &mut inputs)?;
    }
    let mut all = Vec::new();
    let mut shown = String::new();
    let mut faults = 0;
    for input in &inputs {
        match parse_yaml(&input.text, &input.origin) {
            Ok(resources) => all.extend(resources),
            Err(errors) => {
                faults += errors.len();
                for error in errors {
                    shown.push_str(&pointed(&error, &input.text));
                }
            }
        }
    }
    if faults > 0 {
        let counted = counted(faults, "fault", "faults");
        return Err(Failure::said(format!(
            "{counted} in the resources, so nothing was sent; mend what is marked and apply again\n{}",
            shown.trim_end()
        )));
    }
    if all.is_empty() {
        let names: Vec<_> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        return Err(Failure::new(
            "apply",
            format!("no resource is in {}", names.join(", ")),
            "name files with resources with -f, or directories: of those, files that end in .yaml, .yml or .json are read",
        ));
    }
    Ok(all)
}

fn read(path: &Path, inputs: &mut Vec<Input>) -> Result<(), Failure> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        std::io::stdin()
            .lock()
            .take(MAX_BYTES)
            .read_to_string(&mut text)
            .map_err(|error| unreadable(Path::new("standard input"), &error))?;
        inputs.push(Input {
            origin: "<stdin>".to_owned(),
            text,
        });
        return Ok(());
    }
    let meta = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if meta.is_dir() {
        let mut files: Vec<PathBuf> = std::fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| entry.map(|e| e.path())).collect())
            .map_err(|error| unreadable(path, &error))?;
        files.retain(|file| {
            file.extension()
                .is_some_and(|ext| ["yaml", "yml", "json"].iter().any(|known| ext == *known))
        });
        files.sort();
        return files.iter().try_for_each(|file| read(file, inputs));
    }
    if meta.len() > MAX_BYTES {
        return Err(unreadable(
            path,
            &std::io::Error::other(
                "it is over 16 MiB, and at most 1 MiB is read: split it into several files",
            ),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    inputs.push(Input {
        origin: path.display().to_string(),
        text,
    });
    Ok(())
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let next_step = match error.kind() {
        std::io::ErrorKind::InvalidData => "name files of YAML or JSON with -f",
        _ => "name a file or directory that you may read with -f",
    };
    Failure::new(format!("read {}", path.display()), error, next_step)
}

/// Characters of a faulty line that are shown.
const SHOWN: usize = 160;

/// A fault, the line that it is in, and a caret below its column.
fn pointed(error: &ResourceError, text: &str) -> String {
    let mut out = format!("{error}\n");
    let line = error
        .line
        .try_into()
        .ok()
        .and_then(|line: usize| text.lines().nth(line.checked_sub(1)?));
    if let Some(line) = line {
        let column = usize::try_from(error.column).unwrap_or(1).max(1);
        // Of a long line only what is around the column.
        let skipped = (column - 1).saturating_sub(SHOWN / 2);
        let line: String = line.chars().skip(skipped).take(SHOWN).collect();
        // Tabs stay tabs, so that the caret stands below its character in any terminal.
        let pad: String = line
            .chars()
            .take(column - 1 - skipped)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let _ = writeln!(out, "    {line}\n    {pad}^");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const BROKEN: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: invoices
spec:
  parentRefs:
    - kind: Service
      name: invoices
  rules:
    - timeouts:
        request: 5 parsecs
      backendRefs:
        - name: invoices
          port: 80
";

    #[test]
    fn a_fault_is_shown_with_its_line_and_a_caret() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("route.yaml");
        std::fs::write(&file, BROKEN).unwrap();
        let said = resources(std::slice::from_ref(&file))
            .unwrap_err()
            .to_string();
        let place = format!("{}:11:18: ", file.display());
        assert!(said.contains(&place), "{said}");
        assert!(
            said.contains("\n            request: 5 parsecs\n                     ^"),
            "{said}"
        );
        assert!(said.starts_with("1 fault in the resources"), "{said}");
    }

    #[test]
    fn of_a_long_line_only_the_faulty_part_is_shown_and_of_bytes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("long.yaml");
        std::fs::write(&file, "{\"a\":".repeat(100_000)).unwrap();
        let one = std::slice::from_ref(&file);
        let said = resources(one).unwrap_err().to_string();
        assert!(said.len() < 1_000, "{} bytes", said.len());
        std::fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
        let said = resources(one).unwrap_err().to_string();
        assert!(said.contains("name files of YAML or JSON"), "{said}");
    }

    #[test]
    fn a_directory_is_read_in_order_and_only_its_resources() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b", "a"] {
            let text = BROKEN
                .replace("5 parsecs", "5s")
                .replace("name: invoices", &format!("name: {name}"));
            std::fs::write(dir.path().join(format!("{name}.yaml")), text).unwrap();
        }
        std::fs::write(dir.path().join("notes.txt"), "not a resource").unwrap();
        let found = resources(&[dir.path().to_owned()]).unwrap();
        let keys: Vec<String> = found.iter().map(|r| r.key().to_string()).collect();
        assert_eq!(keys, ["HTTPRoute/default/a", "HTTPRoute/default/b"]);
        assert!(resources(&[dir.path().join("gone.yaml")]).is_err());
        let empty = tempfile::tempdir().unwrap();
        let error = resources(&[empty.path().to_owned()])
            .unwrap_err()
            .to_string();
        let said = format!("no resource is in {}; ", empty.path().display());
        assert!(error.contains(&said) && error.contains(".yaml"), "{error}");
    }
}
