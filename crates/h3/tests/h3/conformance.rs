//! The table of rules and tests (`docs/h3-conformance.md`) names tests that exist.

use std::path::Path;

const TABLE: &str = include_str!("../../../../docs/h3-conformance.md");

#[test]
fn each_rule_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(&root.join("src"), &mut sources);
    collect(&root.join("tests"), &mut sources);
    let named: Vec<&str> = TABLE.split('`').filter(|t| t.contains("::")).collect();
    assert!(named.len() > 100, "only {} tests are named", named.len());
    for name in named {
        let Some((file, test)) = name.split_once("::") else {
            continue;
        };
        if file == "x" {
            continue;
        }
        let definition = format!("fn {test}(");
        let found = sources
            .iter()
            .any(|(stem, text)| stem == file && text.contains(&definition));
        assert!(
            found,
            "docs/h3-conformance.md names {name}, which does not exist"
        );
    }
}

/// All Rust files below `dir`: their names without `.rs`, and what they hold.
fn collect(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            into.push((stem, std::fs::read_to_string(&path).unwrap()));
        }
    }
}
