//! Reads a type out of a [`Node`], so that every error knows its place and its path.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use crate::error::{Step, show_path};
use crate::name::shorten;
use crate::near::near;
use crate::node::{Key, Node, Place, Tree};

/// What is wrong, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    reason: String,
    place: Option<Place>,
    /// From the field at fault outwards.
    path: Vec<Step>,
}

impl Fault {
    pub(crate) fn new(reason: impl Into<String>, place: Place, path: Vec<Step>) -> Self {
        Self {
            reason: reason.into(),
            place: Some(place),
            path,
        }
    }

    fn at(mut self, place: Place) -> Self {
        self.place.get_or_insert(place);
        self
    }

    fn under(mut self, step: Step) -> Self {
        self.path.push(step);
        self
    }

    /// The reason, the place, and the path from the root.
    pub(crate) fn into_parts(mut self) -> (String, Place, String) {
        self.path.reverse();
        let path = show_path(&self.path);
        (self.reason, self.place.unwrap_or_default(), path)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Fault {}

/// Parts of the Gateway API that operators may well write, and that weft does not have.
const NOT_SUPPORTED: [&str; 13] = [
    "cors",
    "extensionRef",
    "externalAuth",
    "filters",
    "requestMirror",
    "requestRedirect",
    "sectionName",
    "selector",
    "sessionPersistence",
    "urlRewrite",
    "useDefaultGateways",
    "when",
    "requestPrincipals",
];

fn list(known: &[&str]) -> String {
    known.join(", ")
}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self {
            reason: reason.to_string(),
            place: None,
            path: Vec::new(),
        }
    }

    fn unknown_field(field: &str, known: &'static [&'static str]) -> Self {
        let shown = shorten(field);
        if NOT_SUPPORTED.contains(&field) {
            return Self::custom(format!("field '{shown}' is not supported by weft here"));
        }
        match near(field, known) {
            Some(close) => {
                Self::custom(format!("unknown field '{shown}': did you mean '{close}'?"))
            }
            None => Self::custom(format!(
                "unknown field '{shown}': known are {}",
                list(known)
            )),
        }
    }

    fn unknown_variant(variant: &str, known: &'static [&'static str]) -> Self {
        let shown = shorten(variant);
        match near(variant, known) {
            Some(close) => {
                Self::custom(format!("unknown value '{shown}': did you mean '{close}'?"))
            }
            None => Self::custom(format!(
                "'{shown}' is not known or not supported here: expected {}",
                list(known)
            )),
        }
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format!("field '{field}' is missing"))
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let expected = expected.to_string();
        let quote = match (&found, expected.as_str()) {
            (
                Unexpected::Bool(_)
                | Unexpected::Unsigned(_)
                | Unexpected::Signed(_)
                | Unexpected::Float(_),
                "a string",
            ) => ": put it in quotes",
            _ => "",
        };
        Self::custom(format!(
            "expected {expected}, found {}{quote}",
            show(&found)
        ))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format!("expected {expected}, found {}", show(&found)))
    }
}

fn show(found: &Unexpected<'_>) -> String {
    match found {
        Unexpected::Unit => "nothing".to_owned(),
        Unexpected::Map => "a map".to_owned(),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Str(text) => format!("'{}'", shorten(text)),
        Unexpected::Unsigned(number) => format!("the number {number}"),
        Unexpected::Signed(number) => format!("the number {number}"),
        Unexpected::Float(number) => format!("the number {number}"),
        other => other.to_string(),
    }
}

/// Reads from a node.
#[derive(Clone, Copy)]
pub(crate) struct Located<'n>(pub(crate) &'n Node);

impl<'de> Deserializer<'de> for Located<'de> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Node { place, tree } = self.0;
        let result = match tree {
            Tree::Null => visitor.visit_unit(),
            Tree::Bool(value) => visitor.visit_bool(*value),
            Tree::Unsigned(value) => visitor.visit_u64(*value),
            Tree::Signed(value) => visitor.visit_i64(*value),
            Tree::Float(value) => visitor.visit_f64(*value),
            Tree::Text(text) => visitor.visit_borrowed_str(text),
            Tree::List(items) => visitor.visit_seq(Items {
                rest: items.iter().enumerate(),
            }),
            Tree::Map(entries) => visitor.visit_map(Entries {
                rest: entries.iter(),
                value: None,
            }),
        };
        result.map_err(|fault| fault.at(*place))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.0.tree {
            Tree::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        visitor
            .visit_newtype_struct(self)
            .map_err(|fault| fault.at(self.0.place))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let result = match &self.0.tree {
            Tree::Text(text) => {
                let text: StrDeserializer<'_, Fault> = text.as_str().into_deserializer();
                visitor.visit_enum(text)
            }
            _ => Err(de::Error::custom(format!(
                "expected one of {}",
                list(variants)
            ))),
        };
        result.map_err(|fault| fault.at(self.0.place))
    }

    /// A struct is a map. Anything else, also a list, is refused.
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.0.tree {
            Tree::Map(_) => self.deserialize_any(visitor),
            _ => {
                let reason = format!("expected a map with the fields {}", list(fields));
                Err(Fault::new(reason, self.0.place, Vec::new()))
            }
        }
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'n> {
    rest: std::iter::Enumerate<std::slice::Iter<'n, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Fault;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Fault> {
        match self.rest.next() {
            None => Ok(None),
            Some((index, node)) => seed
                .deserialize(Located(node))
                .map(Some)
                .map_err(|fault| fault.at(node.place).under(Step::Index(index))),
        }
    }
}

struct Entries<'n> {
    rest: std::slice::Iter<'n, (Key, Node)>,
    value: Option<&'n (Key, Node)>,
}

impl<'de> MapAccess<'de> for Entries<'de> {
    type Error = Fault;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Fault> {
        let Some(entry) = self.rest.next() else {
            return Ok(None);
        };
        self.value = Some(entry);
        let key = &entry.0;
        let text: StrDeserializer<'_, Fault> = key.text.as_str().into_deserializer();
        seed.deserialize(text)
            .map(Some)
            .map_err(|fault| fault.at(key.place).under(Step::Key(key.text.clone())))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Fault> {
        let Some((key, node)) = self.value.take() else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        seed.deserialize(Located(node))
            .map_err(|fault| fault.at(node.place).under(Step::Key(key.text.clone())))
    }
}
