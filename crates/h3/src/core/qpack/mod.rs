//! QPACK (RFC 9204) with the static table only: we announce a dynamic table of capacity zero, so a peer
//! may not use one, and our encoder never does. No stream can ever be blocked on another.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod huffman;
pub(crate) mod instructions;
pub(crate) mod int;
pub(crate) mod static_table;

use super::Fault;
use crate::Code;

/// A field section that cannot be decoded loses the connection (RFC 9204 §2.2).
pub(crate) const fn failed(reason: &'static str) -> Fault {
    Fault::connection(Code::QPACK_DECOMPRESSION_FAILED, reason)
}
