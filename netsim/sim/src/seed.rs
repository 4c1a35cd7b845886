//! Seeds of single random streams from the one seed of a run.

use aws_lc_rs::digest;

/// The seed of the stream that `parts` name. Each part counts with its length, so that no two lists of names
/// run together.
pub(crate) fn derive(seed: u64, parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = digest::Context::new(&digest::SHA256);
    hash.update(&seed.to_le_bytes());
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut out = [0; 32];
    out.copy_from_slice(hash.finish().as_ref());
    out
}

/// The same, as 64 bits.
pub(crate) fn derive_u64(seed: u64, parts: &[&[u8]]) -> u64 {
    let wide = derive(seed, parts);
    let mut first = [0; 8];
    first.copy_from_slice(&wide[..8]);
    u64::from_le_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_its_own_stream_and_names_do_not_run_together() {
        assert_eq!(derive(1, &[b"a", b"b"]), derive(1, &[b"a", b"b"]));
        for (seed, parts) in [
            (2, vec![b"a".as_slice(), b"b"]),
            (1, vec![b"ab".as_slice()]),
            (1, vec![b"a".as_slice(), b"b", b""]),
            (1, vec![b"b".as_slice(), b"a"]),
        ] {
            assert_ne!(derive(1, &[b"a", b"b"]), derive(seed, &parts), "{parts:?}");
        }
    }
}
