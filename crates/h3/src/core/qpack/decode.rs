//! Decoding of field sections (RFC 9204 §4.5), one line at a time into a caller's closure: no list is built.

use std::borrow::Cow;

use bytes::Bytes;

use super::{failed, huffman, int, static_table};
use crate::core::Fault;

/// A field's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name<'a> {
    /// By index of the static table.
    Static(usize),
    /// As sent; not validated. Borrowed where it was sent plain: whoever keeps a name makes its own.
    Literal(Cow<'a, [u8]>),
}

/// A field's value; not validated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Static(&'static str),
    Literal(Bytes),
}

/// One field line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    pub(crate) name: Name<'a>,
    pub(crate) value: Value,
    /// Never to be indexed, by whoever sends it on (RFC 9204 §7.1.3).
    pub(crate) sensitive: bool,
}

impl Name<'_> {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Static(index) => static_table::ENTRIES[*index].0.as_bytes(),
            Self::Literal(bytes) => bytes,
        }
    }
}

impl Value {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Static(text) => text.as_bytes(),
            Self::Literal(bytes) => bytes,
        }
    }
}

/// How much a field section may hold.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Sum over the lines of name, value and 32, in bytes (RFC 9114 §4.2.2).
    pub(crate) size: u64,
    /// Number of lines.
    pub(crate) fields: usize,
}

/// Decodes `block` and hands each line to `take`. Values are slices of `block` where they were sent plain.
pub(crate) fn decode(
    block: &Bytes,
    limits: Limits,
    mut take: impl FnMut(Line<'_>) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut rest = &block[..];
    check_prefix(&mut rest)?;
    let (mut size, mut fields) = (0u64, 0usize);
    while !rest.is_empty() {
        let line = line(block, &mut rest)?;
        size += (line.name.as_bytes().len() + line.value.as_bytes().len()) as u64 + 32;
        fields += 1;
        if size > limits.size || fields > limits.fields {
            return Err(Fault::TooLarge);
        }
        take(line)?;
    }
    Ok(())
}

/// Required Insert Count and Base (§4.5.1): with no dynamic table the first is zero and the second does not
/// matter, but must not be negative.
fn check_prefix(rest: &mut &[u8]) -> Result<(), Fault> {
    const CUT: Fault = failed("the field section's prefix is cut short or too large");
    if int::decode(rest, 8).ok_or(CUT)? != 0 {
        return Err(failed(
            "a reference to the dynamic table, which has capacity 0",
        ));
    }
    let negative = rest.first().is_some_and(|b| b & 0x80 != 0);
    int::decode(rest, 7).ok_or(CUT)?;
    if negative {
        return Err(failed("the field section's base is below zero"));
    }
    Ok(())
}

fn line<'a>(block: &Bytes, rest: &mut &'a [u8]) -> Result<Line<'a>, Fault> {
    const DYNAMIC: Fault = failed("a reference to the dynamic table, which has capacity 0");
    let first = rest[0];
    // §4.5.2: indexed field line, 1 T index(6).
    if first & 0x80 != 0 {
        if first & 0x40 == 0 {
            return Err(DYNAMIC);
        }
        let index = static_index(rest, 6)?;
        return Ok(Line {
            name: Name::Static(index),
            value: Value::Static(static_table::ENTRIES[index].1),
            sensitive: false,
        });
    }
    // §4.5.4: literal with name reference, 0 1 N T index(4).
    let (name, never_index) = if first & 0x40 != 0 {
        if first & 0x10 == 0 {
            return Err(DYNAMIC);
        }
        (Name::Static(static_index(rest, 4)?), 0x20)
    // §4.5.6: literal with literal name, 0 0 1 N H length(3).
    } else if first & 0x20 != 0 {
        let (name, huffman) = string(rest, 3)?;
        let name = if huffman {
            Cow::Owned(decoded(name)?)
        } else {
            Cow::Borrowed(name)
        };
        (Name::Literal(name), 0x10)
    // §4.5.3 and §4.5.5: post-base references are to the dynamic table.
    } else {
        return Err(DYNAMIC);
    };
    let (value, huffman) = string(rest, 7)?;
    let value = if huffman {
        Bytes::from(decoded(value)?)
    } else {
        let end = block.len() - rest.len();
        block.slice(end - value.len()..end)
    };
    Ok(Line {
        name,
        value: Value::Literal(value),
        sensitive: first & never_index != 0,
    })
}

fn static_index(rest: &mut &[u8], prefix: u8) -> Result<usize, Fault> {
    match int::decode(rest, prefix) {
        Some(index) if (index as usize) < static_table::LEN => Ok(index as usize),
        Some(_) => Err(failed("an index beyond the static table")),
        None => Err(failed("an index is cut short or too large")),
    }
}

/// A string: H flag, length with `prefix` bits, bytes (§4.1.2). Tells whether they are Huffman-coded.
fn string<'a>(rest: &mut &'a [u8], prefix: u8) -> Result<(&'a [u8], bool), Fault> {
    const CUT: Fault = failed("a string is cut short or too long");
    let huffman = rest.first().ok_or(CUT)? & 1 << prefix != 0;
    let len = int::decode(rest, prefix).ok_or(CUT)?;
    let len = usize::try_from(len)
        .ok()
        .filter(|n| *n <= rest.len())
        .ok_or(CUT)?;
    let (bytes, tail) = rest.split_at(len);
    *rest = tail;
    Ok((bytes, huffman))
}

fn decoded(coded: &[u8]) -> Result<Vec<u8>, Fault> {
    huffman::decode(coded).ok_or(failed("a Huffman string is not valid"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Code;

    const WIDE: Limits = Limits {
        size: 1 << 20,
        fields: 1000,
    };

    fn lines(block: &[u8], limits: Limits) -> Result<Vec<(String, String)>, Fault> {
        let mut out = Vec::new();
        decode(&Bytes::copy_from_slice(block), limits, |line| {
            let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
            out.push((text(line.name.as_bytes()), text(line.value.as_bytes())));
            Ok(())
        })?;
        Ok(out)
    }

    fn is_failed(block: &[u8]) -> bool {
        matches!(
            lines(block, WIDE),
            Err(Fault::Connection {
                code: Code::QPACK_DECOMPRESSION_FAILED,
                ..
            })
        )
    }

    /// RFC 9204 §B.1: a literal with a name of the static table.
    #[test]
    fn rfc9204_b1_example() {
        let mut block = vec![0x00, 0x00, 0x51, 0x0b];
        block.extend_from_slice(b"/index.html");
        assert_eq!(
            lines(&block, WIDE),
            Ok(vec![(":path".into(), "/index.html".into())])
        );
    }

    #[test]
    fn references_to_the_dynamic_table_are_qpack_decompression_failed() {
        let cases: [(&str, &[u8]); 6] = [
            ("required insert count", &[0x02, 0x00]),
            ("indexed", &[0, 0, 0x80]),
            ("name reference", &[0, 0, 0x40, 0x00]),
            ("post-base index", &[0, 0, 0x10]),
            ("post-base name", &[0, 0, 0x00, 0x00]),
            ("negative base", &[0, 0x80]),
        ];
        for (what, block) in cases {
            assert!(is_failed(block), "{what}");
        }
    }

    #[test]
    fn what_is_cut_short_or_out_of_range_is_qpack_decompression_failed() {
        let cases: [(&str, &[u8]); 7] = [
            ("no prefix", &[]),
            ("half a prefix", &[0]),
            ("index 99", &[0, 0, 0xff, 36]),
            (
                "endless index",
                &[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01],
            ),
            ("no value", &[0, 0, 0x51]),
            ("value beyond the block", &[0, 0, 0x51, 0x05, b'a']),
            ("name beyond the block", &[0, 0, 0x27, 0xff, 0x01, b'a']),
        ];
        for (what, block) in cases {
            assert!(is_failed(block), "{what}");
        }
    }

    #[test]
    fn huffman_strings_are_taken() {
        let name = huffman::tests::encode(b"custom-key");
        let value = huffman::tests::encode(b"custom-value");
        let mut block = vec![0, 0];
        int::encode(name.len(), 3, 0x28, &mut block);
        block.extend_from_slice(&name);
        int::encode(value.len(), 7, 0x80, &mut block);
        block.extend_from_slice(&value);
        assert_eq!(
            lines(&block, WIDE),
            Ok(vec![("custom-key".into(), "custom-value".into())])
        );
    }

    #[test]
    fn limits_count_32_bytes_for_each_field() {
        let three_gets = [0, 0, 0xd1, 0xd1, 0xd1];
        let size = 3 * (7 + 3 + 32);
        assert!(lines(&three_gets, Limits { size, fields: 3 }).is_ok());
        for limits in [
            Limits {
                size: size - 1,
                fields: 3,
            },
            Limits { size, fields: 2 },
        ] {
            assert_eq!(lines(&three_gets, limits), Err(Fault::TooLarge));
        }
    }

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics_and_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let mut block = vec![0, 0];
            block.extend_from_slice(&bytes);
            for block in [&block[..], &bytes[..]] {
                let limits = Limits { size: 4096, fields: 16 };
                if let Ok(lines) = lines(block, limits) {
                    let size: usize = lines.iter().map(|(n, v)| n.len() + v.len() + 32).sum();
                    // `from_utf8_lossy` may make three bytes of one.
                    prop_assert!(size <= 3 * 4096 && lines.len() <= 16);
                }
            }
        }
    }
}
