//! QUIC's variable-length integers (RFC 9000 §16).

/// The largest value: 2^62 - 1.
pub(crate) const MAX: u64 = (1 << 62) - 1;
/// Longest encoding in bytes.
pub(crate) const MAX_LEN: usize = 8;

/// Bytes that the encoding which starts with `first` takes.
pub(crate) const fn len_of(first: u8) -> usize {
    1 << (first >> 6)
}

/// Reads one integer from the start of `buf`; `None` when it is not all there.
pub(crate) fn decode(buf: &[u8]) -> Option<(u64, usize)> {
    let first = *buf.first()?;
    let len = len_of(first);
    let rest = buf.get(1..len)?;
    let value = rest
        .iter()
        .fold(u64::from(first & 0x3f), |v, b| v << 8 | u64::from(*b));
    Some((value, len))
}

/// Appends the shortest encoding of `value`, which must not be above [`MAX`].
pub(crate) fn encode(value: u64, out: &mut Vec<u8>) {
    debug_assert!(value <= MAX, "{value} does not fit a QUIC integer");
    match value {
        0..=0x3f => out.push(value as u8),
        0x40..=0x3fff => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..=0x3fff_ffff => {
            out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes());
        }
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of RFC 9000 §A.1.
    #[test]
    fn rfc9000_a1_examples() {
        let cases: [(&[u8], u64); 5] = [
            (
                &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c],
                151_288_809_941_952_652,
            ),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in cases {
            assert_eq!(decode(bytes), Some((value, bytes.len())), "{bytes:02x?}");
        }
    }

    proptest! {
        #[test]
        fn round_trip(value in 0..=MAX, tail in any::<[u8; 2]>()) {
            let mut buf = Vec::new();
            encode(value, &mut buf);
            let len = buf.len();
            prop_assert!(len <= MAX_LEN);
            buf.extend_from_slice(&tail);
            prop_assert_eq!(decode(&buf), Some((value, len)));
            prop_assert_eq!(decode(&buf[..len - 1]), None);
        }

        #[test]
        fn decoding_any_bytes_stays_in_range(bytes in proptest::collection::vec(any::<u8>(), 0..10)) {
            if let Some((value, len)) = decode(&bytes) {
                prop_assert!(value <= MAX && len <= bytes.len());
            }
        }
    }
}
