//! The messages on the wire, as far as weft speaks them: fields that it does not use are skipped in what comes in.
//!
//! They are written by hand, so that building weft needs no protobuf compiler. What others generate from the
//! published definitions understands them (`tests/`).

pub(crate) mod workload;

use bytes::Bytes;
use zeroize::Zeroizing;

/// Bytes that are wiped when the last message with them is gone.
pub(crate) fn secret(bytes: Zeroizing<Vec<u8>>) -> Bytes {
    Bytes::from_owner(bytes)
}
