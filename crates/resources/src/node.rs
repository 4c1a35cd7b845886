//! A document as a tree in which every value knows its place in the text.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::Value;
use serde_saphyr::Spanned;

use crate::error::Step;

/// A place in a text, from 1. Zero if there is no text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) tree: Tree,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Tree {
    Null,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a map and its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub(crate) place: Place,
    pub(crate) text: String,
}

/// Deepest nesting of a document. The deepest resource needs a third of it.
pub(crate) const MAX_DEPTH: usize = 32;

impl Node {
    /// Without places. `None` if it is nested deeper than [`MAX_DEPTH`].
    pub(crate) fn from_json(json: &Value) -> Option<Self> {
        Self::from_json_at(json, 0)
    }

    fn from_json_at(json: &Value, depth: usize) -> Option<Self> {
        if depth > MAX_DEPTH {
            return None;
        }
        let tree = match json {
            Value::Null => Tree::Null,
            Value::Bool(value) => Tree::Bool(*value),
            Value::Number(number) => match (number.as_u64(), number.as_i64()) {
                (Some(value), _) => Tree::Unsigned(value),
                (None, Some(value)) => Tree::Signed(value),
                (None, None) => Tree::Float(number.as_f64()?),
            },
            Value::String(text) => Tree::Text(text.clone()),
            Value::Array(items) => Tree::List(
                items
                    .iter()
                    .map(|item| Self::from_json_at(item, depth + 1))
                    .collect::<Option<_>>()?,
            ),
            Value::Object(map) => {
                let entry = |(key, value): (&String, &Value)| {
                    let place = Place::default();
                    let text = key.clone();
                    Some((Key { place, text }, Self::from_json_at(value, depth + 1)?))
                };
                Tree::Map(map.iter().map(entry).collect::<Option<_>>()?)
            }
        };
        Some(Self {
            place: Place::default(),
            tree,
        })
    }

    /// The entry `key`, if this is a map that has it.
    pub(crate) fn get(&self, key: &str) -> Option<(&Key, &Self)> {
        match &self.tree {
            Tree::Map(entries) => entries
                .iter()
                .find(|(k, _)| k.text == key)
                .map(|(k, node)| (k, node)),
            _ => None,
        }
    }

    /// The place of the field at `path`, or of the nearest thing around it that the text has.
    pub(crate) fn place_of(&self, path: &[Step]) -> Place {
        let mut node = self;
        for step in path {
            let next = match step {
                Step::Key(key) => node.get(key).map(|(_, node)| node),
                Step::Index(index) => match &node.tree {
                    Tree::List(items) => items.get(*index),
                    _ => None,
                },
            };
            match next {
                Some(next) => node = next,
                None => break,
            }
        }
        node.place
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Tree>::deserialize(deserializer)?;
        Ok(Self {
            place: place(&spanned.referenced),
            tree: spanned.value,
        })
    }
}

fn place(location: &serde_saphyr::Location) -> Place {
    Place {
        line: location.line(),
        column: location.column(),
    }
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Tree;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value")
            }

            fn visit_unit<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_none<E>(self) -> Result<Tree, E> {
                Ok(Tree::Null)
            }

            fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<Tree, D::Error> {
                Tree::deserialize(inner)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Tree, E> {
                Ok(Tree::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Tree, E> {
                Ok(Tree::Unsigned(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Tree, E> {
                Ok(u64::try_from(value).map_or(Tree::Signed(value), Tree::Unsigned))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Tree, E> {
                Ok(Tree::Float(value))
            }

            fn visit_str<E>(self, text: &str) -> Result<Tree, E> {
                Ok(Tree::Text(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Tree, E> {
                Ok(Tree::Text(text))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut seq: A) -> Result<Tree, A::Error> {
                let mut items = Vec::new();
                while let Some(item) = seq.next_element()? {
                    items.push(item);
                }
                Ok(Tree::List(items))
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Tree, A::Error> {
                let mut entries = Vec::new();
                while let Some(key) = map.next_key::<Spanned<String>>()? {
                    let key = Key {
                        place: place(&key.referenced),
                        text: key.value,
                    };
                    entries.push((key, map.next_value()?));
                }
                Ok(Tree::Map(entries))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}
