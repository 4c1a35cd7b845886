//! Join tokens: the one secret that lets a machine in which has no identity yet (ca-ops §8, §10.10).
//!
//! A token is 128 random bits, good for one join as one identity within minutes. Only its hash is kept.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::CryptoRng;
use serde::{Deserialize, Serialize};
use weft_certs::SpiffeId;
use zeroize::Zeroizing;

use crate::when::{self, whole};
use crate::{Error, TokenError};

const PREFIX: &str = "weft-join-";
const BYTES: usize = 16;
/// A token that waits longer than this for its machine is a secret that lies around.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
const SHORTEST: Duration = Duration::from_secs(1);

/// The secret itself, in the hands of whoever made or presents it.
#[derive(Clone)]
pub struct JoinToken(Zeroizing<String>);

impl JoinToken {
    /// Makes a new one.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut bytes = Zeroizing::new([0; BYTES]);
        rng.fill_bytes(bytes.as_mut_slice());
        let mut text = Zeroizing::new(String::with_capacity(PREFIX.len() + 2 * BYTES));
        text.push_str(PREFIX);
        for byte in bytes.iter() {
            for nibble in [byte >> 4, byte & 0xf] {
                text.push(
                    char::from_digit(nibble.into(), 16).expect("a nibble is a hexadecimal digit"),
                );
            }
        }
        Self(text)
    }

    /// Reads `weft-join-<32 hexadecimal digits>`; white space around it is cut off, as files end with a newline.
    ///
    /// # Errors
    /// [`TokenError::Unknown`]: text that cannot be a token is as unknown as one that was never made.
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let digits = text.strip_prefix(PREFIX).ok_or(TokenError::Unknown)?;
        let legal = digits.len() == 2 * BYTES
            && digits
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        legal
            .then(|| Self(Zeroizing::new(text.to_owned())))
            .ok_or(TokenError::Unknown)
    }

    /// The secret text, to be shown once to whoever asked for the token, or sent over a verified connection.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The name under which its record is kept: its hash, from which it cannot be guessed.
    pub fn key(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, self.0.as_bytes()))
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(redacted)")
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        Self::parse(text)
    }
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// SHA-256 of the token, base64url: [`JoinToken::key`].
    pub hash: String,
    /// The identity that it gives.
    pub spiffe_id: SpiffeId,
    /// When it was made.
    #[serde(with = "when")]
    pub created: SystemTime,
    /// Until when it is good.
    #[serde(with = "when")]
    pub expires: SystemTime,
    /// When it was used.
    #[serde(with = "when::option", default)]
    pub used: Option<SystemTime>,
}

impl TokenRecord {
    /// The record of a token that was just made, good for `ttl`: ten minutes by habit, a week at most. The caller has
    /// checked that the identity may be given ([`is_reserved`](crate::is_reserved)).
    ///
    /// # Errors
    /// [`Error::Lifetime`].
    pub fn new(
        token: &JoinToken,
        spiffe_id: SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, Error> {
        if !(SHORTEST..=LONGEST).contains(&ttl) {
            return Err(Error::Lifetime {
                asked: ttl,
                min: SHORTEST,
                max: LONGEST,
            });
        }
        Ok(Self {
            hash: token.key(),
            spiffe_id,
            created: whole(now),
            expires: whole(now + ttl),
            used: None,
        })
    }

    /// Uses the token: the record to store in its place, by compare-and-set so that of two joins at the same time one
    /// fails. The identity to issue for is the record's.
    ///
    /// # Errors
    /// [`TokenError`]: not this token, used before, or too late. The record stays as it is.
    pub fn redeem(&self, presented: &JoinToken, now: SystemTime) -> Result<Self, TokenError> {
        // The hashes are compared in constant time, so that an answer's delay says nothing of a stored one.
        verify_slices_are_equal(self.hash.as_bytes(), presented.key().as_bytes())
            .map_err(|_| TokenError::Unknown)?;
        if let Some(at) = self.used {
            return Err(TokenError::Used { at });
        }
        if now >= self.expires {
            return Err(TokenError::Expired { at: self.expires });
        }
        Ok(Self {
            used: Some(whole(now)),
            ..self.clone()
        })
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
