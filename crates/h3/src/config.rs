//! What an endpoint takes.

use crate::core::qpack::decode::Limits;

/// Limits of one HTTP/3 connection, announced in SETTINGS where the protocol has a setting for them.
///
/// How many streams a peer may open, and how much it may send unread, are QUIC's limits: they are set in
/// quinn's `TransportConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Config {
    /// Largest header or trailer section taken, in bytes: names, values and 32 for each field
    /// (RFC 9114 §4.2.2). A server answers a larger one with 431. Default 64 KiB.
    pub max_field_section_size: u64,
    /// Most fields taken in one section. Default 128.
    pub max_fields: usize,
    /// Send a setting and a frame of reserved, meaningless types (RFC 9114 §7.2.8), so that peers stay used
    /// to ignoring what they do not know. Default true.
    pub grease: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_field_section_size: 64 * 1024,
            max_fields: 128,
            grease: true,
        }
    }
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            size: self.max_field_section_size,
            fields: self.max_fields,
        }
    }
}
