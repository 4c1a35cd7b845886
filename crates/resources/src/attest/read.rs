//! From the text of the file to attestors, or to what is wrong with it and where.

use serde::Deserialize;

use super::Attestors;
use crate::error::{Checker, ResourceError, show_path};
use crate::located::Located;
use crate::node::{Node, Place, Tree};
use crate::yaml::{MAX_INPUT, read_nodes, syntax_error};

/// Reads the file of attestors. `origin` is shown in errors.
///
/// # Errors
/// Everything that is wrong with it, each with line, column and field.
pub fn parse_attestors(text: &str, origin: &str) -> Result<Attestors, Vec<ResourceError>> {
    let error = |place: Place, path: String, reason: String| ResourceError {
        origin: origin.to_owned(),
        line: place.line,
        column: place.column,
        path,
        reason,
    };
    let whole = |reason: String| vec![error(Place::default(), String::new(), reason)];
    if text.len() > MAX_INPUT {
        return Err(whole(format!(
            "is {} bytes long, at most {MAX_INPUT} are read",
            text.len()
        )));
    }
    let nodes = read_nodes(text).map_err(|fault| vec![syntax_error(&fault, origin, 0)])?;
    let node = match nodes.as_slice() {
        [one] if matches!(one.tree, Tree::Map(_)) => one,
        _ => return Err(whole("is not one map with x509pop, k8s or both".to_owned())),
    };
    read(node).map_err(|problems| {
        problems
            .into_iter()
            .map(|(place, path, reason)| error(place, path, reason))
            .collect()
    })
}

/// A fault: its place, the field, the reason.
type Fault = (Place, String, String);

fn read(node: &Node) -> Result<Attestors, Vec<Fault>> {
    let attestors = Attestors::deserialize(Located(node)).map_err(|fault| {
        let (reason, place, path) = fault.into_parts();
        vec![(place, path, reason)]
    })?;
    let mut checker = Checker::default();
    attestors.check(&mut checker);
    let problems = checker.into_problems();
    if problems.is_empty() {
        return Ok(attestors);
    }
    Err(problems
        .into_iter()
        .map(|problem| {
            let place = node.place_of(&problem.path);
            (place, show_path(&problem.path), problem.reason)
        })
        .collect())
}
