//! What the control node remembers of a delegate. The decisions are pure.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use weft_ca::audit::Head;
use weft_ca::{JoinToken, TokenError, TokenRecord};
use weft_certs::{RootPin, Site, TrustDomain};

use crate::admin::types::{DelegateInfo, DelegateState};
use crate::store::{Entry, Store, StoreError};
use crate::time::unix_s;

pub(super) const PREFIX: &str = "delegate/";
/// Sites of one mesh. Each asks the control node every few seconds.
pub(super) const MAX_DELEGATES: usize = 256;

/// A delegate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) site: String,
    pub(super) permitted: Vec<String>,
    /// Life of its certificates.
    pub(super) ttl_s: u64,
    pub(super) created_unix: u64,
    /// Whether an operator has ended it.
    #[serde(default)]
    pub(super) revoked: bool,
    /// What lets it in, while that is not used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) token: Option<TokenRecord>,
    /// Its certificate, once it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) certificate: Option<Certificate>,
    #[serde(default)]
    pub(super) heard_unix: u64,
    /// Where its audit log ends, as far as it is here.
    #[serde(default)]
    pub(super) taken: Head,
}

/// The newest certificate of a delegate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Certificate {
    pub(super) key: RootPin,
    pub(super) serial: String,
    /// The root that signed it.
    pub(super) root: String,
    pub(super) not_after_unix: u64,
}

/// Why a key is not certified for a site.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(
        "the delegate of this site was revoked; make another one with `weft ca delegate create`"
    )]
    Revoked,
    #[error(
        "the delegate of this site has another key: if its machine is lost, end that one with `weft ca delegate revoke`, then make another one with `weft ca delegate create`"
    )]
    OtherKey,
    #[error("{0}")]
    Token(#[from] TokenError),
}

impl Stored {
    pub(super) fn key(site: &str) -> String {
        format!("{PREFIX}{site}")
    }

    fn read(entry: &Entry) -> Option<Self> {
        serde_json::from_slice(&entry.value).ok()
    }

    pub(super) async fn load(
        store: &dyn Store,
        site: &str,
    ) -> Result<Option<(Entry, Self)>, StoreError> {
        let entry = store.get(&Self::key(site)).await?;
        Ok(entry.and_then(|entry| Self::read(&entry).map(|stored| (entry, stored))))
    }

    pub(super) async fn all(store: &dyn Store) -> Result<Vec<(Entry, Self)>, StoreError> {
        let range = store.range(PREFIX).await?;
        let read = |entry: Entry| Self::read(&entry).map(|stored| (entry, stored));
        Ok(range.entries.into_iter().filter_map(read).collect())
    }

    /// The site, which was checked before it was stored.
    pub(super) fn site(&self, domain: &TrustDomain) -> Option<Site> {
        Site::new(&self.site, domain, &self.permitted).ok()
    }

    pub(super) fn ttl(&self) -> Duration {
        Duration::from_secs(self.ttl_s)
    }

    /// Whether this key may be certified now: by a token that was presented, or by the certificate of the connection.
    pub(super) fn admits(
        &self,
        key: &RootPin,
        presented: Option<(&JoinToken, SystemTime)>,
    ) -> Result<(), Unfit> {
        if self.revoked {
            return Err(Unfit::Revoked);
        }
        if let Some((token, now)) = presented {
            let record = self.token.as_ref().ok_or(TokenError::Unknown)?;
            record.redeem(token, now)?;
        }
        match &self.certificate {
            Some(known) if known.key != *key => Err(Unfit::OtherKey),
            _ => Ok(()),
        }
    }

    pub(super) fn info(&self, now: SystemTime) -> DelegateInfo {
        let end = self.certificate.as_ref().map(|c| c.not_after_unix);
        let state = match end {
            _ if self.revoked => DelegateState::Revoked,
            None => DelegateState::Awaited,
            Some(end) if end <= unix_s(now) => DelegateState::Ended,
            Some(_) => DelegateState::Active,
        };
        DelegateInfo {
            site: self.site.clone(),
            state,
            permitted: self.permitted.clone(),
            ttl_s: self.ttl_s,
            key: self.certificate.as_ref().map(|c| c.key.to_string()),
            serial: self.certificate.as_ref().map(|c| c.serial.clone()),
            not_after_unix: end,
            heard_unix: (self.heard_unix > 0).then_some(self.heard_unix),
            records: self.taken.seq,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    fn now() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(1_800_000_000)
    }

    fn token() -> JoinToken {
        JoinToken::parse("weft-join-000102030405060708090a0b0c0d0e0f").unwrap()
    }

    fn stored(key: Option<u8>) -> Stored {
        let id = "spiffe://weft.local/ns/weft-system/sa/site-paris";
        let record = TokenRecord::new(
            &token(),
            weft_certs::SpiffeId::parse(id).unwrap(),
            Duration::from_secs(600),
            now(),
        );
        Stored {
            site: "paris".into(),
            permitted: vec!["spiffe://weft.local/ns/paris/*".into()],
            ttl_s: 3600,
            created_unix: 1,
            revoked: false,
            token: Some(record.unwrap()),
            certificate: key.map(|key| Certificate {
                key: RootPin::from([key; 32]),
                serial: "01".into(),
                root: "root-1".into(),
                not_after_unix: 2_000_000_000,
            }),
            heard_unix: 0,
            taken: Head::default(),
        }
    }

    #[test]
    fn a_delegate_is_let_in_by_its_token_once_and_with_the_key_that_it_has() {
        let (one, two) = (RootPin::from([1; 32]), RootPin::from([2; 32]));
        let good = token();
        let presented = Some((&good, now()));
        assert_eq!(stored(None).admits(&one, presented), Ok(()));
        assert_eq!(stored(Some(1)).admits(&one, presented), Ok(()));
        assert_eq!(stored(Some(1)).admits(&one, None), Ok(()));
        assert_eq!(
            stored(Some(1)).admits(&two, presented),
            Err(Unfit::OtherKey)
        );
        assert_eq!(stored(Some(1)).admits(&two, None), Err(Unfit::OtherKey));
        let other = JoinToken::parse("weft-join-ff0102030405060708090a0b0c0d0e0f").unwrap();
        assert_eq!(
            stored(None).admits(&one, Some((&other, now()))),
            Err(Unfit::Token(TokenError::Unknown))
        );
        let late = now() + Duration::from_secs(600);
        assert!(matches!(
            stored(None).admits(&one, Some((&good, late))),
            Err(Unfit::Token(TokenError::Expired { .. }))
        ));
        let used = Stored {
            token: None,
            ..stored(None)
        };
        assert!(used.admits(&one, presented).is_err());
        let revoked = Stored {
            revoked: true,
            ..stored(Some(1))
        };
        assert_eq!(revoked.admits(&one, None), Err(Unfit::Revoked));
        assert_eq!(revoked.admits(&one, presented), Err(Unfit::Revoked));
    }
}
