//! Tokens that were made a moment ago: pure.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use super::source::Token;

/// Audiences that a program and its neighbours speak to at the same time.
const MAX_TOKENS: usize = 64;

/// Tokens by their audience.
#[derive(Debug, Default)]
pub(crate) struct TokenCache {
    tokens: BTreeMap<Vec<String>, (Token, SystemTime)>,
}

impl TokenCache {
    /// One that has more than half of its life before it.
    pub(crate) fn get(&self, audience: &[String], now: SystemTime) -> Option<Token> {
        let (token, made) = self.tokens.get(audience)?;
        let life = token.expires.duration_since(*made).unwrap_or_default();
        let left = token.expires.duration_since(now).unwrap_or_default();
        // A clock that was set back makes no token young again.
        (left > life / 2 && left <= life).then(|| token.clone())
    }

    /// Keeps one that was made at `now`.
    pub(crate) fn put(&mut self, audience: Vec<String>, token: Token, now: SystemTime) {
        self.tokens.retain(|_, (token, _)| token.expires > now);
        if self.tokens.len() >= MAX_TOKENS {
            let left = |token: &Token| token.expires.duration_since(now).unwrap_or(Duration::ZERO);
            let oldest = self.tokens.iter().min_by_key(|(_, (token, _))| left(token));
            if let Some(oldest) = oldest.map(|(audience, _)| audience.clone()) {
                self.tokens.remove(&oldest);
            }
        }
        self.tokens.insert(audience, (token, now));
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use zeroize::Zeroizing;

    use super::*;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000 + seconds)
    }

    fn token(text: &str, end: u64) -> Token {
        Token {
            token: Zeroizing::new(text.to_owned()),
            expires: at(end),
        }
    }

    fn names(name: &str) -> Vec<String> {
        vec![name.to_owned()]
    }

    #[test]
    fn a_token_is_given_again_for_its_audience_until_half_of_its_life_is_over() {
        let mut cache = TokenCache::default();
        cache.put(names("a"), token("one", 300), at(0));
        let found = |now| {
            let found = cache.get(&names("a"), now);
            found.map(|token| token.token.to_string())
        };
        assert_eq!(found(at(0)).as_deref(), Some("one"));
        assert_eq!(found(at(149)).as_deref(), Some("one"));
        assert_eq!(found(at(150)), None);
        assert_eq!(found(at(1000)), None);
        assert_eq!(found(at(0) - Duration::from_secs(60)), None, "set back");
        assert!(cache.get(&names("b"), at(0)).is_none());
    }

    #[test]
    fn it_keeps_a_few_and_forgets_what_ends_first() {
        let mut cache = TokenCache::default();
        for n in 0..200 {
            cache.put(names(&format!("{n}")), token("x", 300 + n), at(0));
            assert!(cache.tokens.len() <= MAX_TOKENS);
        }
        assert!(cache.get(&names("0"), at(0)).is_none());
        assert!(cache.get(&names("199"), at(0)).is_some());
        cache.put(names("late"), token("x", 2000), at(1000));
        assert_eq!(cache.tokens.len(), 1, "what has ended is forgotten");
    }
}
