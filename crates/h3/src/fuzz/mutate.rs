//! Where inputs come from.

use std::hash::{DefaultHasher, Hash, Hasher};

/// Longest input.
const MAX_LEN: usize = 2048;
/// Integers at the edges of QUIC's and QPACK's encodings.
const EDGES: [&[u8]; 12] = [
    &[0x00],
    &[0x3f],
    &[0x40, 0x00],
    &[0x7f, 0xff],
    &[0x80, 0, 0, 0],
    &[0xbf, 0xff, 0xff, 0xff],
    &[0xc0, 0, 0, 0, 0, 0, 0, 0],
    &[0xff; 8],
    &[0xd0, 0, 0, 0, 0, 0, 0, 0],
    &[0x1f, 0xff, 0xff, 0xff, 0x0f],
    &[0x7f, 0x80, 0x01],
    &[0x21],
];

/// A small generator (splitmix64): the same inputs in each ordinary run.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(name: &str) -> Self {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        // A long run is to see other inputs than the last one did.
        if std::env::var_os("WEFT_FUZZ_CPU_SECONDS").is_some() {
            std::process::id().hash(&mut hasher);
        }
        Self(hasher.finish())
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// Lengths of the pieces that an input is given in, over and over.
    pub(super) fn cuts(&mut self) -> Vec<usize> {
        let count = 1 + self.below(3);
        (0..count).map(|_| 1 + self.below(20)).collect()
    }

    /// One of the pool, changed in a few places; now and then something random.
    pub(super) fn mutated(&mut self, pool: &[Vec<u8>]) -> Vec<u8> {
        let mut input = match self.below(20) {
            0 => (0..self.below(200)).map(|_| self.next() as u8).collect(),
            _ => pool[self.below(pool.len())].clone(),
        };
        for _ in 0..=self.below(5) {
            self.edit(&mut input, pool);
        }
        input.truncate(MAX_LEN);
        input
    }

    fn edit(&mut self, input: &mut Vec<u8>, pool: &[Vec<u8>]) {
        let at = self.below(input.len());
        let end = at + self.below(input.len() - at.min(input.len()));
        match self.below(9) {
            0 if !input.is_empty() => input[at] = self.next() as u8,
            1 if !input.is_empty() => input[at] ^= 1 << self.below(8),
            2 if !input.is_empty() => {
                input[at] = input[at].wrapping_add(self.below(3) as u8).wrapping_sub(1)
            }
            3 => drop(input.drain(at..end)),
            4 => input.truncate(at),
            5 => {
                let again = input[at..end].to_vec();
                input.splice(at..at, again);
            }
            6 => {
                let edge = EDGES[self.below(EDGES.len())];
                input.splice(at..at, edge.iter().copied());
            }
            7 => {
                let other = &pool[self.below(pool.len())];
                let from = self.below(other.len());
                let to = from + self.below(other.len() - from);
                input.splice(at..at, other[from..to].iter().copied());
            }
            _ => input.insert(at, self.next() as u8),
        }
    }
}
