//! Encoding of field lines (RFC 9204 §4.5): static table and plain literals, no Huffman.

use super::int;
use super::static_table::{Found, find};

/// Appends the prefix of a field section that uses no dynamic table.
pub(crate) fn prefix(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0]);
}

/// Appends a field line. One that is `sensitive` is marked so that no hop ever indexes it (§7.1.3).
pub(crate) fn field(name: &str, value: &[u8], sensitive: bool, out: &mut Vec<u8>) {
    let never = if sensitive { 0x20 } else { 0 };
    match find(name, value) {
        Found::Field(index) if !sensitive => return int::encode(index, 6, 0xc0, out),
        Found::Field(index) | Found::Name(index) => int::encode(index, 4, 0x50 | never, out),
        Found::Nothing => {
            int::encode(name.len(), 3, 0x20 | never >> 1, out);
            out.extend_from_slice(name.as_bytes());
        }
    }
    int::encode(value.len(), 7, 0, out);
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::decode::{Limits, Line, decode};
    use super::super::static_table::ENTRIES;
    use super::*;

    const WIDE: Limits = Limits {
        size: 1 << 20,
        fields: 1000,
    };

    fn round_trip(fields: &[(String, Vec<u8>, bool)]) -> Vec<(String, Vec<u8>)> {
        let mut block = Vec::new();
        prefix(&mut block);
        for (name, value, sensitive) in fields {
            field(name, value, *sensitive, &mut block);
        }
        let mut out = Vec::new();
        decode(&Bytes::from(block), WIDE, |Line { name, value, .. }| {
            let name = String::from_utf8(name.as_bytes().to_vec()).expect("names are text");
            out.push((name, value.as_bytes().to_vec()));
            Ok(())
        })
        .expect("what we encode, we decode");
        out
    }

    #[test]
    fn fields_of_the_static_table_take_one_or_two_bytes() {
        for (name, value) in ENTRIES.iter().filter(|(_, v)| !v.is_empty()) {
            let mut out = Vec::new();
            field(name, value.as_bytes(), false, &mut out);
            assert!(out.len() <= 2, "{name}: {value} took {} bytes", out.len());
        }
    }

    #[test]
    fn a_sensitive_value_is_a_never_indexed_literal() {
        let mut out = Vec::new();
        field("authorization", b"secret", true, &mut out);
        assert_eq!(out[0] & 0xf0, 0x70, "0 1 N=1 T=1");
        out.clear();
        field("x-api-key", b"secret", true, &mut out);
        assert_eq!(out[0] & 0xf8, 0x30, "0 0 1 N=1 H=0");
    }

    proptest! {
        #[test]
        fn what_is_encoded_decodes_to_the_same(
            custom in proptest::collection::vec(("[a-z][a-z0-9-]{0,40}", proptest::collection::vec(any::<u8>(), 0..300), any::<bool>()), 0..20),
            known in proptest::collection::vec((0..ENTRIES.len(), any::<bool>()), 0..20),
        ) {
            let mut fields = custom;
            fields.extend(known.into_iter().map(|(i, s)| (ENTRIES[i].0.to_owned(), ENTRIES[i].1.as_bytes().to_vec(), s)));
            let expected: Vec<_> = fields.iter().map(|(n, v, _)| (n.clone(), v.clone())).collect();
            prop_assert_eq!(round_trip(&fields), expected);
        }
    }
}
