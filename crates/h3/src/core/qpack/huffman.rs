//! The Huffman code of RFC 7541 Appendix B, decoding only: we never send it, since it costs more CPU than
//! the bytes are worth inside a mesh.
//!
//! The code is canonical: codes of one length are consecutive, in the order of their symbols. So the
//! lengths alone define it, and both tables below are computed from them when the crate is compiled.

/// Length of each symbol's code in bits; the last one is the end-of-string symbol.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
    6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
    5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
    13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
    7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
    15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
    6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];

const LONGEST: usize = 30;
const EOS: u16 = 256;
/// Codes of up to this many bits are found by one look-up: every printable character but a few.
const FAST_BITS: u32 = 10;

/// Symbols ordered by code, and for each length the first code, their number and where they start.
struct Canonical {
    symbols: [u16; 257],
    /// For codes of each length: the first code after the last of that length, aligned left to 32 bits.
    limit: [u64; LONGEST + 1],
    /// What to add to a code of that length for its place in `symbols`.
    offset: [i64; LONGEST + 1],
}

const CANONICAL: Canonical = canonical();
/// For the next `FAST_BITS` bits: symbol in the high byte, code length in the low one; 0 when it is longer.
static FAST: [u16; 1 << FAST_BITS] = fast();
static TABLE: Canonical = CANONICAL;

const fn canonical() -> Canonical {
    let mut table = Canonical {
        symbols: [0; 257],
        limit: [0; LONGEST + 1],
        offset: [0; LONGEST + 1],
    };
    let mut code: u64 = 0;
    let mut placed = 0;
    let mut len = 1;
    while len <= LONGEST {
        code <<= 1;
        table.offset[len] = placed as i64 - code as i64;
        let mut symbol = 0;
        while symbol < 257 {
            if LENGTHS[symbol] as usize == len {
                table.symbols[placed] = symbol as u16;
                placed += 1;
                code += 1;
            }
            symbol += 1;
        }
        table.limit[len] = code << (32 - len);
        len += 1;
    }
    table
}

const fn fast() -> [u16; 1 << FAST_BITS] {
    let mut table = [0; 1 << FAST_BITS];
    let mut bits = 0u64;
    while bits < 1 << FAST_BITS {
        let window = bits << (32 - FAST_BITS);
        let mut len = 1;
        while len <= FAST_BITS as usize {
            if window < CANONICAL.limit[len] {
                let place = (window >> (32 - len)) as i64 + CANONICAL.offset[len];
                table[bits as usize] = CANONICAL.symbols[place as usize] << 8 | len as u16;
                break;
            }
            len += 1;
        }
        bits += 1;
    }
    table
}

/// Decodes `input`, at most 8/5 of its length. `None` when it holds the end-of-string symbol, or padding
/// that is longer than seven bits or not all ones (RFC 7541 §5.2).
pub(crate) fn decode(input: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(input.len() * 8 / 5);
    let mut bytes = input.iter();
    let mut acc: u64 = 0;
    let mut have: u32 = 0;
    loop {
        while have <= 32
            && let Some(byte) = bytes.next()
        {
            acc = acc << 8 | u64::from(*byte);
            have += 8;
        }
        if have == 0 {
            return Some(out);
        }
        // The next 32 bits, filled up with ones, which are no whole symbol but a prefix of EOS.
        let window = if have >= 32 {
            acc >> (have - 32) & 0xffff_ffff
        } else {
            (acc << (32 - have) | (0xffff_ffff >> have)) & 0xffff_ffff
        };
        let (symbol, len) = next_symbol(window);
        if len > have {
            let padding = acc & ((1 << have) - 1);
            return (have < 8 && padding == (1 << have) - 1).then_some(out);
        }
        if symbol == EOS {
            return None;
        }
        out.push(symbol as u8);
        have -= len;
    }
}

fn next_symbol(window: u64) -> (u16, u32) {
    let entry = FAST[(window >> (32 - FAST_BITS)) as usize];
    if entry != 0 {
        return (entry >> 8, u32::from(entry & 0xff));
    }
    let mut len = FAST_BITS as usize + 1;
    while len < LONGEST && window >= TABLE.limit[len] {
        len += 1;
    }
    let place = (window >> (32 - len)) as i64 + TABLE.offset[len];
    (TABLE.symbols[place as usize], len as u32)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A slow, obvious encoder, for tests only.
    pub(crate) fn encode(input: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for byte in input {
            let len = usize::from(LENGTHS[usize::from(*byte)]);
            let place = TABLE.symbols.iter().position(|s| *s == u16::from(*byte));
            let code = place.expect("every byte has a code") as i64 - TABLE.offset[len];
            bits.extend((0..len).rev().map(|i| code >> i & 1 == 1));
        }
        while bits.len() % 8 != 0 {
            bits.push(true);
        }
        bits.chunks(8)
            .map(|c| c.iter().fold(0, |b, bit| b << 1 | u8::from(*bit)))
            .collect()
    }

    /// The examples of RFC 7541 §C.4 and §C.6.
    #[test]
    fn rfc7541_examples() {
        let cases: [(&[u8], &str); 5] = [
            (
                &[
                    0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff,
                ],
                "www.example.com",
            ),
            (&[0xa8, 0xeb, 0x10, 0x64, 0x9c, 0xbf], "no-cache"),
            (
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xa9, 0x7d, 0x7f],
                "custom-key",
            ),
            (
                &[0x25, 0xa8, 0x49, 0xe9, 0x5b, 0xb8, 0xe8, 0xb4, 0xbf],
                "custom-value",
            ),
            (&[0x64, 0x02], "302"),
        ];
        for (bytes, text) in cases {
            assert_eq!(decode(bytes).as_deref(), Some(text.as_bytes()), "{text}");
            assert_eq!(encode(text.as_bytes()), bytes, "{text}");
        }
    }

    #[test]
    fn every_byte_value_survives() {
        for byte in 0..=255u8 {
            for count in 1..9 {
                let text = vec![byte; count];
                assert_eq!(decode(&encode(&text)), Some(text));
            }
        }
    }

    #[test]
    fn bad_padding_and_eos_are_refused() {
        // '0' is 00000: then three bits of padding that are not ones.
        assert_eq!(decode(&[0b0000_0000]).as_deref(), None);
        assert_eq!(decode(&[0b0000_0111]).as_deref(), Some(&b"0"[..]));
        assert_eq!(decode(&[0xff]), None, "eight bits of padding");
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff]), None, "end of string");
        assert_eq!(
            decode(&[0xff, 0xff, 0xff, 0xfc]),
            None,
            "EOS with zero padding"
        );
        assert_eq!(decode(&[]).as_deref(), Some(&b""[..]));
    }

    proptest! {
        #[test]
        fn round_trip(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }

        #[test]
        fn any_bytes_decode_to_a_bounded_string_that_encodes_back(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(text) = decode(&bytes) {
                prop_assert!(text.len() <= bytes.len() * 8 / 5);
                prop_assert_eq!(encode(&text), bytes);
            }
        }
    }
}
