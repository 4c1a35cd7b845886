//! HTTP/3's and QPACK's error codes.

use std::fmt;

use quinn::VarInt;

/// An application error code of a stream or a connection (RFC 9114 §8.1, RFC 9204 §6). At most 2^62 - 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Code(u64);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $name: Self = Self($value);)*

            /// The RFC's name of the code; `None` when it is not one of its codes.
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }
    };
}

codes! {
    /// An HTTP datagram that breaks a rule (RFC 9297 §5.2).
    DATAGRAM_ERROR = 0x33, "H3_DATAGRAM_ERROR";
    /// No error: also "I do not need the rest".
    NO_ERROR = 0x100, "H3_NO_ERROR";
    /// A violation that has no code of its own.
    GENERAL_PROTOCOL_ERROR = 0x101, "H3_GENERAL_PROTOCOL_ERROR";
    /// A failure inside the endpoint.
    INTERNAL_ERROR = 0x102, "H3_INTERNAL_ERROR";
    /// A stream that may not be opened.
    STREAM_CREATION_ERROR = 0x103, "H3_STREAM_CREATION_ERROR";
    /// A stream was closed that the connection needs.
    CLOSED_CRITICAL_STREAM = 0x104, "H3_CLOSED_CRITICAL_STREAM";
    /// A frame where it may not stand.
    FRAME_UNEXPECTED = 0x105, "H3_FRAME_UNEXPECTED";
    /// A frame of the wrong size or layout.
    FRAME_ERROR = 0x106, "H3_FRAME_ERROR";
    /// The peer makes more work than is reasonable.
    EXCESSIVE_LOAD = 0x107, "H3_EXCESSIVE_LOAD";
    /// A stream or push id used wrongly.
    ID_ERROR = 0x108, "H3_ID_ERROR";
    /// A fault in SETTINGS.
    SETTINGS_ERROR = 0x109, "H3_SETTINGS_ERROR";
    /// The control stream did not start with SETTINGS.
    MISSING_SETTINGS = 0x10a, "H3_MISSING_SETTINGS";
    /// The server did not process the request at all: safe to retry.
    REQUEST_REJECTED = 0x10b, "H3_REQUEST_REJECTED";
    /// The request or its response is no longer wanted.
    REQUEST_CANCELLED = 0x10c, "H3_REQUEST_CANCELLED";
    /// The client's stream ended before the request was complete.
    REQUEST_INCOMPLETE = 0x10d, "H3_REQUEST_INCOMPLETE";
    /// A malformed message.
    MESSAGE_ERROR = 0x10e, "H3_MESSAGE_ERROR";
    /// The TCP connection behind a CONNECT was reset or failed.
    CONNECT_ERROR = 0x10f, "H3_CONNECT_ERROR";
    /// The request must be sent over HTTP/1.1.
    VERSION_FALLBACK = 0x110, "H3_VERSION_FALLBACK";
    /// A field section that cannot be decoded.
    QPACK_DECOMPRESSION_FAILED = 0x200, "QPACK_DECOMPRESSION_FAILED";
    /// A fault on the QPACK encoder stream.
    QPACK_ENCODER_STREAM_ERROR = 0x201, "QPACK_ENCODER_STREAM_ERROR";
    /// A fault on the QPACK decoder stream.
    QPACK_DECODER_STREAM_ERROR = 0x202, "QPACK_DECODER_STREAM_ERROR";
}

impl Code {
    /// The number on the wire.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Whether the code only says "I do not need the rest": `H3_NO_ERROR`, and every code that HTTP/3 does
    /// not define (RFC 9114 §9).
    pub const fn is_no_error(self) -> bool {
        matches!(self, Self::NO_ERROR) || self.name().is_none()
    }

    pub(crate) const fn new(value: u64) -> Self {
        Self(value)
    }
}

impl From<VarInt> for Code {
    fn from(value: VarInt) -> Self {
        Self(value.into_inner())
    }
}

impl From<Code> for VarInt {
    fn from(code: Code) -> Self {
        VarInt::from_u64(code.0).unwrap_or(VarInt::MAX)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "code {:#x}", self.0),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9114 §8.1, RFC 9204 §6, RFC 9297 §5.2.
    #[test]
    fn numbers_are_the_rfcs() {
        let all = [
            (0x33, "H3_DATAGRAM_ERROR"),
            (0x100, "H3_NO_ERROR"),
            (0x101, "H3_GENERAL_PROTOCOL_ERROR"),
            (0x102, "H3_INTERNAL_ERROR"),
            (0x103, "H3_STREAM_CREATION_ERROR"),
            (0x104, "H3_CLOSED_CRITICAL_STREAM"),
            (0x105, "H3_FRAME_UNEXPECTED"),
            (0x106, "H3_FRAME_ERROR"),
            (0x107, "H3_EXCESSIVE_LOAD"),
            (0x108, "H3_ID_ERROR"),
            (0x109, "H3_SETTINGS_ERROR"),
            (0x10a, "H3_MISSING_SETTINGS"),
            (0x10b, "H3_REQUEST_REJECTED"),
            (0x10c, "H3_REQUEST_CANCELLED"),
            (0x10d, "H3_REQUEST_INCOMPLETE"),
            (0x10e, "H3_MESSAGE_ERROR"),
            (0x10f, "H3_CONNECT_ERROR"),
            (0x110, "H3_VERSION_FALLBACK"),
            (0x200, "QPACK_DECOMPRESSION_FAILED"),
            (0x201, "QPACK_ENCODER_STREAM_ERROR"),
            (0x202, "QPACK_DECODER_STREAM_ERROR"),
        ];
        let known: Vec<_> = (0..0x1000)
            .filter_map(|n| Code::new(n).name().map(|name| (n, name)))
            .collect();
        assert_eq!(known, all);
    }

    /// RFC 9114 §9.
    #[test]
    fn unknown_codes_count_as_no_error() {
        for unknown in [0, 0x21, 0x111, 0x1f * 1000 + 0x21, (1 << 62) - 1] {
            assert!(Code::new(unknown).is_no_error(), "{unknown:#x}");
        }
        assert!(Code::NO_ERROR.is_no_error());
        assert!(!Code::MESSAGE_ERROR.is_no_error() && !Code::DATAGRAM_ERROR.is_no_error());
    }
}
