//! The messages on the wire, as far as weft speaks them: fields that it does not use are skipped in what comes in.
//!
//! They are written by hand, so that building weft needs no protobuf compiler. What others generate from the
//! published definitions understands them (`tests/`).

pub(crate) mod sds;
pub(crate) mod workload;

use bytes::Bytes;
use zeroize::Zeroizing;

/// Bytes that are wiped when the last message with them is gone.
pub(crate) fn secret(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(bytes)
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(crate) value: Bytes,
}

impl Any {
    /// Packs a message under the name of its type.
    pub(crate) fn pack(name: &str, message: &impl prost::Message) -> Self {
        // The whole size at once: a vector that grows would leave copies of what it holds.
        let mut bytes = Zeroizing::new(Vec::with_capacity(message.encoded_len()));
        message
            .encode(&mut *bytes)
            .expect("a vector of the right size has room");
        Self {
            type_url: format!("type.googleapis.com/{name}"),
            value: secret(bytes),
        }
    }
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Struct {
    #[prost(btree_map = "string, message", tag = "1")]
    pub(crate) fields: std::collections::BTreeMap<String, Value>,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Value {
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub(crate) kind: Option<Kind>,
}

/// What a `google.protobuf.Value` is.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Kind {
    #[prost(int32, tag = "1")]
    Null(i32),
    #[prost(double, tag = "2")]
    Number(f64),
    #[prost(string, tag = "3")]
    Text(String),
    #[prost(bool, tag = "4")]
    Bool(bool),
    #[prost(message, tag = "5")]
    Struct(Struct),
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ListValue {
    #[prost(message, repeated, tag = "1")]
    pub(crate) values: Vec<Value>,
}
