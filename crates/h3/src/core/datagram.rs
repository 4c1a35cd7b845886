//! HTTP datagrams in QUIC DATAGRAM frames (RFC 9297 §2.1).

use bytes::{Buf, Bytes};

use super::{Fault, varint};
use crate::Code;

/// Largest quarter stream id: a stream id is at most 2^62 - 1.
const MAX_QUARTER: u64 = (1 << 60) - 1;

/// Takes the request's stream id off the front of a frame's payload.
pub(crate) fn decode(mut frame: Bytes) -> Result<(u64, Bytes), Fault> {
    let error = |reason| Err(Fault::connection(Code::DATAGRAM_ERROR, reason));
    match varint::decode(&frame) {
        None => error("a datagram is too short for its stream's id"),
        Some((quarter, _)) if quarter > MAX_QUARTER => {
            error("a datagram names a stream that cannot be")
        }
        Some((quarter, used)) => {
            frame.advance(used);
            Ok((quarter * 4, frame))
        }
    }
}

/// A frame's payload: the datagram of the request on stream `id`, given in parts.
pub(crate) fn encode(id: u64, parts: [&[u8]; 2]) -> Vec<u8> {
    let payload: usize = parts.iter().map(|p| p.len()).sum();
    let mut frame = Vec::with_capacity(varint::MAX_LEN + payload);
    varint::encode(id / 4, &mut frame);
    frame.extend_from_slice(parts[0]);
    frame.extend_from_slice(parts[1]);
    frame
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn code(frame: &[u8]) -> Option<Code> {
        match decode(Bytes::copy_from_slice(frame)) {
            Ok(_) => None,
            Err(Fault::Connection { code, .. }) => Some(code),
            Err(other) => panic!("datagram faults close the connection, not {other:?}"),
        }
    }

    #[test]
    fn too_short_for_a_quarter_stream_id_is_h3_datagram_error() {
        for frame in [&[][..], &[0x40], &[0x80, 0, 0], &[0xc0, 0, 0, 0, 0, 0, 0]] {
            assert_eq!(code(frame), Some(Code::DATAGRAM_ERROR), "{frame:02x?}");
        }
    }

    #[test]
    fn a_quarter_stream_id_above_2_60_is_h3_datagram_error() {
        let mut frame = Vec::new();
        varint::encode(MAX_QUARTER + 1, &mut frame);
        assert_eq!(code(&frame), Some(Code::DATAGRAM_ERROR));
        frame.clear();
        varint::encode(MAX_QUARTER, &mut frame);
        assert_eq!(
            decode(frame.into()),
            Ok(((1 << 62) - 4, Bytes::new())),
            "the largest id, and an empty payload"
        );
    }

    proptest! {
        #[test]
        fn round_trip(quarter in 0..=MAX_QUARTER, a in any::<Vec<u8>>(), b in any::<Vec<u8>>()) {
            let frame = encode(quarter * 4, [&a, &b]);
            let (id, payload) = decode(frame.into()).unwrap();
            prop_assert_eq!(id, quarter * 4);
            prop_assert_eq!(&payload[..], &[a, b].concat()[..]);
        }
    }
}
