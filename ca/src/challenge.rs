//! What a joiner with a machine's certificate signs: a challenge that is good once and for half a minute.
//!
//! One that was given out is not remembered: anybody may ask for any number. It carries its end and a tag by the key of
//! this process, and only those that were signed by somebody who may join are kept, until their end.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_lc_rs::hmac::{self, HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::CryptoRng;

const NONCE: usize = 16;
const END: usize = 8;
const TAG: usize = 32;
/// Used ones that are kept: as many joins as there can be within a life, ten times over.
const MAX_USED: usize = 20_000;

/// How long a challenge is good: two round trips and a signature.
pub const CHALLENGE_LIFE: Duration = Duration::from_secs(30);

/// Makes challenges and takes them back. Times are since any fixed moment, the same for all calls, by a clock that
/// nobody sets.
pub struct Challenges {
    key: hmac::Key,
    /// End in milliseconds, and the random part.
    used: BTreeSet<(u64, [u8; NONCE])>,
}

/// Why a challenge is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ChallengeError {
    /// It was not made by this process.
    #[error("the challenge is not one of this control node, or it has restarted: try again")]
    Unknown,
    /// Too late.
    #[error("the challenge is older than 30 s: try again")]
    Expired,
    /// Second use.
    #[error(
        "the challenge was already used: one is good for one join; if the joiner did not send it twice, look into it"
    )]
    Used,
    /// More joins than there can be.
    #[error("too many join at this moment: try again in half a minute")]
    Full,
}

impl ChallengeError {
    /// A stable label for counters and tests.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Unknown => "challenge_unknown",
            Self::Expired => "challenge_expired",
            Self::Used => "challenge_used",
            Self::Full => "challenges_full",
        }
    }
}

impl Challenges {
    /// With a key of its own.
    pub fn new(rng: &mut dyn CryptoRng) -> Self {
        let mut key = zeroize::Zeroizing::new([0; 32]);
        rng.fill_bytes(key.as_mut_slice());
        Self {
            key: hmac::Key::new(HMAC_SHA256, key.as_slice()),
            used: BTreeSet::new(),
        }
    }

    /// Makes one.
    pub fn make(&self, rng: &mut dyn CryptoRng, now: Duration) -> String {
        let mut bytes = [0; NONCE + END + TAG];
        rng.fill_bytes(&mut bytes[..NONCE]);
        let end = millis(now.saturating_add(CHALLENGE_LIFE));
        bytes[NONCE..NONCE + END].copy_from_slice(&end.to_be_bytes());
        let tag = hmac::sign(&self.key, &bytes[..NONCE + END]);
        bytes[NONCE + END..].copy_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Whether it can be used now. It is not used by that.
    ///
    /// # Errors
    /// [`ChallengeError`].
    pub fn check(&self, challenge: &str, now: Duration) -> Result<(), ChallengeError> {
        let parts = self.read(challenge)?;
        if parts.0 <= millis(now) {
            return Err(ChallengeError::Expired);
        }
        match self.used.contains(&parts) {
            true => Err(ChallengeError::Used),
            false => Ok(()),
        }
    }

    /// Uses it up.
    ///
    /// # Errors
    /// [`ChallengeError`].
    pub fn redeem(&mut self, challenge: &str, now: Duration) -> Result<(), ChallengeError> {
        self.check(challenge, now)?;
        // Those that have ended are refused without being remembered.
        self.used = self.used.split_off(&(millis(now), [0; NONCE]));
        if self.used.len() >= MAX_USED {
            return Err(ChallengeError::Full);
        }
        self.used.insert(self.read(challenge)?);
        Ok(())
    }

    fn read(&self, challenge: &str) -> Result<(u64, [u8; NONCE]), ChallengeError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(challenge)
            .ok()
            .and_then(|bytes| <[u8; NONCE + END + TAG]>::try_from(bytes).ok())
            .ok_or(ChallengeError::Unknown)?;
        let (signed, tag) = bytes.split_at(NONCE + END);
        hmac::verify(&self.key, signed, tag).map_err(|_| ChallengeError::Unknown)?;
        let (mut nonce, mut end) = ([0; NONCE], [0; END]);
        nonce.copy_from_slice(&signed[..NONCE]);
        end.copy_from_slice(&signed[NONCE..]);
        Ok((u64::from_be_bytes(end), nonce))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::rng;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn a_challenge_is_good_once_and_for_half_a_minute() {
        let mut challenges = Challenges::new(&mut rng());
        let one = challenges.make(&mut rng(), NOW);
        assert_eq!(challenges.check(&one, NOW), Ok(()));
        let late = NOW + CHALLENGE_LIFE;
        assert_eq!(challenges.check(&one, late), Err(ChallengeError::Expired));
        let just = late - Duration::from_millis(1);
        assert_eq!(challenges.redeem(&one, just), Ok(()));
        assert_eq!(challenges.check(&one, just), Err(ChallengeError::Used));
        assert_eq!(challenges.redeem(&one, just), Err(ChallengeError::Used));
    }

    #[test]
    fn a_challenge_of_another_process_is_unknown() {
        let mut random = rng();
        let mut challenges = Challenges::new(&mut random);
        let other = Challenges::new(&mut random).make(&mut random, NOW);
        assert_eq!(challenges.redeem(&other, NOW), Err(ChallengeError::Unknown));
        assert_eq!(challenges.check("", NOW), Err(ChallengeError::Unknown));
    }

    #[test]
    fn used_ones_are_forgotten_at_their_end_and_bounded_before() {
        let mut random = rng();
        let mut challenges = Challenges::new(&mut random);
        for _ in 0..MAX_USED {
            let one = challenges.make(&mut random, NOW);
            assert_eq!(challenges.redeem(&one, NOW), Ok(()));
        }
        let one = challenges.make(&mut random, NOW);
        assert_eq!(challenges.redeem(&one, NOW), Err(ChallengeError::Full));
        let later = NOW + CHALLENGE_LIFE + Duration::from_millis(1);
        let one = challenges.make(&mut random, later);
        assert_eq!(challenges.redeem(&one, later), Ok(()));
        assert_eq!(challenges.used.len(), 1);
    }

    proptest! {
        #[test]
        fn no_other_text_is_taken_for_a_challenge(at in 0_usize..200, to in any::<char>(), text in ".{0,100}") {
            let mut challenges = Challenges::new(&mut rng());
            let good = challenges.make(&mut rng(), NOW);
            let mut changed: Vec<char> = good.chars().collect();
            let place = at % changed.len();
            changed[place] = to;
            let changed: String = changed.into_iter().collect();
            if changed != good {
                prop_assert!(challenges.redeem(&changed, NOW).is_err(), "{changed}");
            }
            prop_assert!(challenges.redeem(&text, NOW).is_err());
        }
    }
}
