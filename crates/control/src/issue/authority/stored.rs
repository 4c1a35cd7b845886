//! The authority in the store: its journal, its trust bundle, and what is revoked.

use weft_ca::{Authority, CaConfig, Error as CaError, Journal};
use weft_certs::{RevocationList, TrustBundle, TrustDomain};
use weft_env::Env;

use super::{JOURNAL, Keys, LEDGER};
use crate::error::ControlError;
use crate::issue::ledger::Ledger;
use crate::store::{Revision, Store, json};

/// The stored journal, and the revision that wrote it.
pub(crate) async fn read_journal(store: &dyn Store) -> Result<(Journal, Revision), ControlError> {
    let entry = store.get(JOURNAL).await?;
    let entry = entry.ok_or_else(|| ControlError::Damaged {
        what: "the authority's journal is missing from the store".to_owned(),
    })?;
    let journal = serde_json::from_slice(&entry.value).map_err(|error| ControlError::Damaged {
        what: format!("the authority's journal cannot be read: {error}"),
    })?;
    Ok((journal, entry.mod_revision))
}

pub(super) async fn read_ledger(store: &dyn Store) -> Result<Ledger, ControlError> {
    let Some(entry) = store.get(LEDGER).await? else {
        return Ok(Ledger::default());
    };
    serde_json::from_slice(&entry.value).map_err(|error| ControlError::Damaged {
        what: format!("the record of what is revoked cannot be read: {error}"),
    })
}

/// At a delegate: bundle and list as they were followed last.
pub(super) async fn read_followed(
    store: &dyn Store,
    domain: &TrustDomain,
) -> Result<(Option<TrustBundle>, RevocationList), ControlError> {
    let damaged = |what: &str, error: &dyn std::fmt::Display| ControlError::Damaged {
        what: format!("{what} cannot be read: {error}"),
    };
    let bundle = match store.get(&format!("trust/{domain}")).await? {
        None => None,
        Some(entry) => {
            let jwks: serde_json::Value = serde_json::from_slice(&entry.value)
                .map_err(|error| damaged("the trust bundle", &error))?;
            let bundle = TrustBundle::from_jwks(domain.clone(), &jwks);
            Some(bundle.map_err(|error| damaged("the trust bundle", &error))?)
        }
    };
    let list = match store.get(&format!("trust/{domain}/revoked")).await? {
        None => RevocationList::default(),
        Some(entry) => serde_json::from_slice(&entry.value)
            .map_err(|error| damaged("the list of what is revoked", &error))?,
    };
    Ok((bundle, list))
}

pub(super) async fn load(
    env: &Env,
    config: CaConfig,
    journal: Journal,
    keys: Keys,
) -> Result<Authority, CaError> {
    env.disk(move |_| Authority::load(config, journal, &*keys))
        .await
}

pub(super) fn trust_entry(bundle: &TrustBundle) -> (String, Vec<u8>) {
    let key = format!("trust/{}", bundle.trust_domain);
    (key, json(&bundle.to_jwks()))
}
