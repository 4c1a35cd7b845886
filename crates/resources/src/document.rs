//! From a document to a resource: dispatch by kind, read, check.

use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::error::{ResourceError, Step, show_path};
use crate::located::{Fault, Located};
use crate::name::shorten;
use crate::near::near;
use crate::node::{Node, Place, Tree};
use crate::resource::{Kind, Metadata, Object, Resource};

/// Reads the resource in `node`, whose text began after `line_offset` lines of `origin`.
pub(crate) fn resource_from(
    node: &Node,
    origin: &str,
    line_offset: u64,
) -> Result<Resource, Vec<ResourceError>> {
    let error = |place: Place, path: String, reason: String| ResourceError {
        origin: origin.to_owned(),
        line: if place.line == 0 {
            0
        } else {
            place.line + line_offset
        },
        column: place.column,
        path,
        reason,
    };
    let resource = read(node).map_err(|fault| {
        let (reason, place, path) = fault.into_parts();
        vec![error(place, path, reason)]
    })?;
    let problems = resource.problems();
    if problems.is_empty() {
        return Ok(resource);
    }
    Err(problems
        .into_iter()
        .map(|problem| {
            let place = node.place_of(&problem.path);
            error(place, show_path(&problem.path), problem.reason)
        })
        .collect())
}

fn read(node: &Node) -> Result<Resource, Fault> {
    if !matches!(node.tree, Tree::Map(_)) {
        let reason = "a resource is a map with apiVersion, kind, metadata and spec";
        return Err(Fault::new(reason, node.place, Vec::new()));
    }
    let kind = kind_of(node)?;
    Ok(match kind {
        Kind::HttpRoute => Resource::HttpRoute(object(node)?),
        Kind::AuthorizationPolicy => Resource::AuthorizationPolicy(object(node)?),
        Kind::OutboundListener => Resource::OutboundListener(object(node)?),
        Kind::ServiceEntry => Resource::ServiceEntry(object(node)?),
    })
}

/// The kind, if `kind` and `apiVersion` go together.
fn kind_of(node: &Node) -> Result<Kind, Fault> {
    let (kind_text, kind_place) = text_field(node, "kind")?;
    let Some(kind) = Kind::ALL.into_iter().find(|k| k.as_str() == kind_text) else {
        let known = Kind::ALL.map(Kind::as_str);
        let hint = match near(kind_text, &known) {
            Some(close) => format!("did you mean '{close}'?"),
            None => format!("known are {}", known.join(", ")),
        };
        let reason = format!("unknown kind '{}': {hint}", shorten(kind_text));
        return Err(Fault::new(
            reason,
            kind_place,
            vec![Step::Key("kind".to_owned())],
        ));
    };
    let (version, place) = text_field(node, "apiVersion")?;
    if version != kind.api_version() {
        let reason = format!(
            "'{}' is not a version of {kind} that weft knows: expected {}",
            shorten(version),
            kind.api_version()
        );
        return Err(Fault::new(
            reason,
            place,
            vec![Step::Key("apiVersion".to_owned())],
        ));
    }
    Ok(kind)
}

fn text_field<'n>(node: &'n Node, key: &str) -> Result<(&'n str, Place), Fault> {
    match node.get(key) {
        Some((
            _,
            Node {
                place,
                tree: Tree::Text(text),
            },
        )) => Ok((text, *place)),
        Some((_, other)) => {
            let path = vec![Step::Key(key.to_owned())];
            Err(Fault::new("expected a string", other.place, path))
        }
        None => {
            let reason = format!("field '{key}' is missing");
            Err(Fault::new(reason, node.place, Vec::new()))
        }
    }
}

fn object<'n, S: Deserialize<'n>>(node: &'n Node) -> Result<Object<S>, Fault> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Envelope<S> {
        #[serde(rename = "apiVersion")]
        _api_version: Seen,
        #[serde(rename = "kind")]
        _kind: Seen,
        metadata: Metadata,
        spec: S,
    }
    let envelope = Envelope::<S>::deserialize(Located(node))?;
    Ok(Object {
        metadata: envelope.metadata,
        spec: envelope.spec,
    })
}

/// A field that `kind_of` has read already.
struct Seen;

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        de::IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}
