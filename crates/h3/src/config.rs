//! What an endpoint takes.

use crate::core::Role;
use crate::core::credit::Windows;
use crate::core::qpack::decode::Limits;
use crate::core::settings::Settings;

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
    /// Server: offer extended CONNECT (RFC 9220). A request that uses it then has a [`Protocol`] among its
    /// extensions; one whose protocol the handler does not know is to be answered with 501. Default false:
    /// such requests are malformed.
    ///
    /// [`Protocol`]: crate::Protocol
    pub extended_connect: bool,
    /// Bytes of received HTTP datagrams (RFC 9297) kept for each request that may have them, a little more
    /// being counted for each than its length; what comes beyond is dropped. 0, the default, switches them
    /// off. QUIC must take DATAGRAM frames: quinn does, by default.
    pub datagram_buffer: usize,
    /// Send a setting and a frame of reserved, meaningless types (RFC 9114 §7.2.8), so that peers stay used
    /// to ignoring what they do not know. Default true.
    pub grease: bool,
    /// Says to the peer that parity is taken and sent beneath QUIC: it is for the socket's owner to do so. A setting of
    /// weft's own, which others ignore (RFC 9114 §7.2.4). Default false.
    pub parity: bool,
    /// QUIC's windows, by which the reading side judges when readers that stand still are too many: it then asks the
    /// peer to send less ahead of them, so that they do not hold up the others (`docs/adr/0011-standing-readers.md`).
    /// `None`, the default, for never; what the peer asks for is heeded either way.
    pub windows: Option<Windows>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_field_section_size: 64 * 1024,
            max_fields: 128,
            extended_connect: false,
            datagram_buffer: 0,
            grease: true,
            parity: false,
            windows: None,
        }
    }
}

impl Config {
    /// What we say of ourselves.
    pub(crate) fn settings(&self, role: Role) -> Settings {
        Settings {
            max_field_section_size: self.max_field_section_size,
            // RFC 8441 §3: a client has nothing to offer.
            enable_connect_protocol: self.extended_connect && role == Role::Server,
            h3_datagram: self.datagram_buffer > 0,
            parity: self.parity,
        }
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            size: self.max_field_section_size,
            fields: self.max_fields,
        }
    }
}
