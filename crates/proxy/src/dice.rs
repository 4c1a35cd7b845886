//! Random draws of the data path: request ids, weights, the two choices of the balancer.

use std::sync::{Mutex, PoisonError};

use weft_env::{Env, Rng};

/// One random stream that many tasks draw from. The lock is held for one draw.
#[derive(Debug)]
pub(crate) struct Dice(Mutex<Rng>);

impl Dice {
    pub(crate) fn new(env: &Env, purpose: &'static str) -> Self {
        Self(Mutex::new(env.rng(purpose)))
    }

    /// 64 random bits.
    pub(crate) fn draw(&self) -> u64 {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rng.next_u64()
    }

    /// Two draws at once.
    pub(crate) fn pair(&self) -> (u64, u64) {
        let mut rng = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (rng.next_u64(), rng.next_u64())
    }

    /// 128 random bits.
    pub(crate) fn id(&self) -> u128 {
        let (high, low) = self.pair();
        u128::from(high) << 64 | u128::from(low)
    }
}
