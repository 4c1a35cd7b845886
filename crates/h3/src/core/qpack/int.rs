//! Integers with a prefix of N bits (RFC 7541 §5.1, as RFC 9204 §4.1.1 uses them).

/// Largest value that is taken: far above any length we accept, far below an overflow.
const MAX: u64 = (1 << 32) - 1;

/// Reads an integer whose first byte holds `prefix` bits of it. Takes it off the front of `buf`; `None` when
/// it is cut short, above 2^32 - 1, or padded beyond five more bytes.
pub(crate) fn decode(buf: &mut &[u8], prefix: u8) -> Option<u64> {
    let (first, mut rest) = buf.split_first()?;
    let mask = u8::MAX >> (8 - prefix);
    let mut value = u64::from(first & mask);
    if value == u64::from(mask) {
        for shift in (0..=28).step_by(7) {
            let (byte, tail) = rest.split_first()?;
            rest = tail;
            value += u64::from(byte & 0x7f) << shift;
            if value > MAX {
                return None;
            }
            if byte & 0x80 == 0 {
                *buf = rest;
                return Some(value);
            }
        }
        return None;
    }
    *buf = rest;
    Some(value)
}

/// Appends `value` with a prefix of `prefix` bits; `flags` are the bits above it.
pub(crate) fn encode(value: usize, prefix: u8, flags: u8, out: &mut Vec<u8>) {
    let mask = usize::from(u8::MAX >> (8 - prefix));
    if value < mask {
        out.push(flags | value as u8);
        return;
    }
    out.push(flags | mask as u8);
    let mut rest = value - mask;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The examples of RFC 7541 §C.1.
    #[test]
    fn rfc7541_c1_examples() {
        for (bytes, prefix, value) in [
            (&[0x0a][..], 5, 10),
            (&[0x1f, 0x9a, 0x0a], 5, 1337),
            (&[0x2a], 8, 42),
        ] {
            assert_eq!(decode(&mut &bytes[..], prefix), Some(value));
            let mut out = Vec::new();
            encode(value as usize, prefix, 0, &mut out);
            assert_eq!(out, bytes);
        }
    }

    #[test]
    fn integers_are_bounded() {
        let huge: [&[u8]; 3] = [
            &[0x1f, 0xff, 0xff, 0xff, 0xff, 0x7f],
            &[
                0x1f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
            &[0x1f, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
        ];
        for bytes in huge {
            assert_eq!(decode(&mut &bytes[..], 5), None, "{bytes:02x?}");
        }
        assert_eq!(decode(&mut &[0x1f, 0x80][..], 5), None, "cut short");
    }

    proptest! {
        #[test]
        fn round_trip(value in 0usize..=MAX as usize, prefix in 3u8..=8) {
            let mut out = Vec::new();
            encode(value, prefix, 0, &mut out);
            out.push(0x55);
            let mut rest = &out[..];
            prop_assert_eq!(decode(&mut rest, prefix), Some(value as u64));
            prop_assert_eq!(rest, &[0x55][..]);
        }
    }
}
