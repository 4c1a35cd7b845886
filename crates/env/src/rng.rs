//! Randomness, one stream per purpose.

use std::convert::Infallible;
use std::fmt;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng, TryCryptoRng, TryRng};

/// A cryptographically secure random stream (ChaCha), made by [`Env::rng`](crate::Env::rng).
///
/// It implements `rand`'s `Rng` and `CryptoRng`, so every distribution of that crate works on it.
pub struct Rng(StdRng);

impl Rng {
    pub(crate) fn from_seed(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    /// The next 64 random bits.
    #[must_use]
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Fills `out` with random bytes.
    pub fn fill_bytes(&mut self, out: &mut [u8]) {
        self.0.fill_bytes(out);
    }
}

impl TryRng for Rng {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        self.0.try_next_u32()
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0.try_next_u64()
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        self.0.try_fill_bytes(out)
    }
}

impl TryCryptoRng for Rng {}

impl fmt::Debug for Rng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The state would foretell keys and tokens.
        f.write_str("Rng(..)")
    }
}
