//! Types of unidirectional streams (RFC 9114 §6.2, RFC 9204 §4.2).

use bytes::{Buf, Bytes};

use super::varint;

/// What a unidirectional stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StreamType {
    Control,
    Push,
    QpackEncoder,
    QpackDecoder,
    /// Not known to HTTP/3, greased ones among them.
    Unknown(u64),
}

impl StreamType {
    pub(crate) const CONTROL: u8 = 0x0;
    pub(crate) const QPACK_ENCODER: u8 = 0x2;
    pub(crate) const QPACK_DECODER: u8 = 0x3;

    const fn from_id(id: u64) -> Self {
        match id {
            0x0 => Self::Control,
            0x1 => Self::Push,
            0x2 => Self::QpackEncoder,
            0x3 => Self::QpackDecoder,
            other => Self::Unknown(other),
        }
    }
}

/// Reads a stream's type, byte by byte if need be.
#[derive(Debug, Default)]
pub(crate) struct TypeReader {
    part: [u8; varint::MAX_LEN],
    filled: u8,
}

impl TypeReader {
    /// Takes the type from the front of `input`; `None` when more bytes are needed.
    pub(crate) fn read(&mut self, input: &mut Bytes) -> Option<StreamType> {
        while input.has_remaining() {
            self.part[usize::from(self.filled)] = input.get_u8();
            self.filled += 1;
            if let Some((id, _)) = varint::decode(&self.part[..usize::from(self.filled)]) {
                return Some(StreamType::from_id(id));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_read_across_chunks() {
        let mut reader = TypeReader::default();
        assert_eq!(reader.read(&mut Bytes::from_static(&[0x40])), None);
        let mut rest = Bytes::from_static(&[0x02, 0x99]);
        assert_eq!(reader.read(&mut rest), Some(StreamType::QpackEncoder));
        assert_eq!(&rest[..], &[0x99]);
    }

    #[test]
    fn anything_else_is_unknown() {
        for id in [0x4u8, 0x21, 0x3f] {
            let mut one = Bytes::copy_from_slice(&[id]);
            assert_eq!(
                TypeReader::default().read(&mut one),
                Some(StreamType::Unknown(u64::from(id)))
            );
        }
    }
}
