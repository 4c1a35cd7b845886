//! Backup and restore: the whole of a control node's state, sealed, in one file.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use weft_ca::{Journal, KeyId, KeyStore, Secret, seal, unseal};
use weft_env::Env;
use weft_pkcs11::Place;
use zeroize::Zeroizing;

use crate::error::ControlError;
use crate::issue::{CaService, JOURNAL, read_journal};
use crate::keys::{KeyAccess, open_keys, reopen};
use crate::state::{StateDir, hold_empty};
use crate::store::{RedbStore, Revision, Store};

const WHAT: &str = "weft backup";
const VERSION: u32 = 1;
/// A backup whose keys are in a token: a program that does not know this would miss them only later.
const VERSION_TOKEN: u32 = 2;
/// A mesh may have gone on after the backup was made. Sidecars never go back to an older revision, so what is
/// restored begins well beyond any that they can have seen.
const LEAP: Revision = 1 << 32;

/// What is in a backup.
#[derive(Serialize, Deserialize)]
struct Backup {
    version: u32,
    trust_domain: String,
    revision: Revision,
    entries: Vec<(String, String)>,
    keys: Vec<(KeyId, SecretText)>,
    /// The token that has the keys, which are then not in here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<Place>,
}

/// A private key in base64; wiped when dropped.
struct SecretText(Zeroizing<String>);

impl Serialize for SecretText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for SecretText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Self(Zeroizing::new(text)))
    }
}

/// What a backup or a restore found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupReport {
    /// The mesh.
    pub trust_domain: String,
    /// The store's revision.
    pub revision: u64,
    /// Entries of the store.
    pub entries: usize,
    /// Private keys of authorities in it.
    pub keys: usize,
    /// The token that has them instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
}

impl Backup {
    fn report(&self) -> BackupReport {
        BackupReport {
            trust_domain: self.trust_domain.clone(),
            revision: self.revision,
            entries: self.entries.len(),
            keys: self.keys.len(),
            token: self.token.as_ref().map(|place| place.token.clone()),
        }
    }
}

/// Backs a control node up that is not running.
///
/// # Errors
/// [`ControlError`]: it runs, or has no state.
pub async fn backup(
    env: &Env,
    state_dir: &Path,
    keys: KeyAccess,
    secret: Arc<Secret>,
) -> Result<(Vec<u8>, BackupReport), ControlError> {
    let dir = crate::state::claim(env, state_dir, None, keys).await?;
    let opened = dir.open(env).await?;
    take(env, opened.store, opened.keys, secret).await
}

/// Backs a running one up. The store is read at one revision.
pub(crate) async fn of_running(
    env: &Env,
    ca: &CaService,
    secret: Arc<Secret>,
) -> Result<(Vec<u8>, BackupReport), ControlError> {
    let (store, keys) = (ca.store().clone(), ca.keys());
    take(env, store, keys, secret).await
}

async fn take(
    env: &Env,
    store: Arc<dyn Store>,
    keys: Arc<dyn KeyStore>,
    secret: Arc<Secret>,
) -> Result<(Vec<u8>, BackupReport), ControlError> {
    let range = store.range("").await?;
    let journal = read_journal(&*store).await?.0;
    env.disk(move |_| {
        let token = match keys.record() {
            Some(text) => Some(Place::parse(text.as_bytes()).map_err(damaged)?),
            None => None,
        };
        // Keys that cannot leave their token stay there; the backup says which token.
        let leaving = journal.keys().filter(|_| token.is_none());
        let keys = leaving
            .map(|id| {
                let text = STANDARD.encode(keys.export(id)?);
                Ok((id.clone(), SecretText(Zeroizing::new(text))))
            })
            .collect::<Result<Vec<_>, weft_ca::Error>>()?;
        let entries = range.entries.iter();
        let backup = Backup {
            version: match token {
                None => VERSION,
                Some(_) => VERSION_TOKEN,
            },
            trust_domain: journal.trust_domain().to_string(),
            revision: range.revision,
            entries: entries
                .map(|entry| (entry.key.clone(), STANDARD.encode(&entry.value)))
                .collect(),
            keys,
            token,
        };
        let plain = Zeroizing::new(serde_json::to_vec(&backup).map_err(damaged)?);
        let text = seal(WHAT, &plain, &secret)?;
        Ok((text, backup.report()))
    })
    .await
}

#[allow(clippy::needless_pass_by_value, reason = "made for map_err")]
fn damaged(error: impl std::fmt::Display) -> ControlError {
    ControlError::Backup {
        reason: format!("it cannot be read: {error}"),
    }
}

/// Puts a backup into a directory that is empty or does not exist. Keys first, the store last: a directory in which
/// this was cut off has no state, and the next attempt clears it away.
///
/// # Errors
/// [`ControlError`]: the directory is in use, or it is no backup, or the passphrase is not the right one.
pub async fn restore(
    env: &Env,
    state_dir: &Path,
    access: KeyAccess,
    text: Vec<u8>,
    secret: Arc<Secret>,
) -> Result<BackupReport, ControlError> {
    let backup: Backup = env
        .disk(move |_| {
            let plain = unseal(WHAT, &text, &secret)?;
            serde_json::from_slice(&plain).map_err(damaged)
        })
        .await?;
    if ![VERSION, VERSION_TOKEN].contains(&backup.version) {
        return Err(ControlError::Backup {
            reason: format!(
                "it is of version {}, this weft knows versions up to {VERSION_TOKEN}",
                backup.version
            ),
        });
    }
    let report = backup.report();
    if backup.token.is_none() && access.token.is_some() {
        return Err(ControlError::Backup {
            reason: "its keys are files, and a token takes none in: restore it without --pkcs11-token and the like"
                .to_owned(),
        });
    }
    let dir = hold_empty(env, state_dir, access.clone()).await?;
    fill(env, &dir, access, backup).await?;
    Ok(report)
}

async fn fill(
    env: &Env,
    dir: &StateDir,
    access: KeyAccess,
    backup: Backup,
) -> Result<(), ControlError> {
    let Backup {
        revision,
        entries,
        keys,
        token,
        ..
    } = backup;
    let entries = entries
        .into_iter()
        .map(|(key, value)| Ok((key, STANDARD.decode(value).map_err(damaged)?.into())))
        .collect::<Result<Vec<(String, bytes::Bytes)>, ControlError>>()?;
    let journal = entries.iter().find(|(key, _)| key == JOURNAL);
    let journal = journal.map(|(_, value)| value.clone());
    let (path, mut rng) = (dir.keys(), env.rng("ca-token"));
    env.disk(move |_| {
        if let Some(place) = token {
            let journal: Journal =
                serde_json::from_slice(&journal.unwrap_or_default()).map_err(damaged)?;
            // First of all whether the token has them: nothing is written if not.
            let store = reopen(&path, place, &access)?;
            let missing = journal.live_keys().find_map(|id| store.signer(id).err());
            return match missing {
                Some(error) => {
                    let _ = std::fs::remove_dir_all(&path);
                    Err(error.into())
                }
                None => Ok(()),
            };
        }
        let store = open_keys(&path, &access, "", &mut rng)?;
        for (id, pkcs8) in keys {
            let der = Zeroizing::new(STANDARD.decode(pkcs8.0.as_str()).map_err(damaged)?);
            store.import(&id, der)?;
        }
        Ok::<_, ControlError>(())
    })
    .await?;
    RedbStore::restore(env, &dir.store(), revision + LEAP, entries).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::InitConfig;
    use crate::store::Txn;

    fn secret(text: &str) -> Arc<Secret> {
        Arc::new(Secret::new(text.as_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_backup_makes_the_same_mesh_elsewhere_and_its_revisions_go_on() {
        let (env, dir) = (Env::system(), tempfile::tempdir().unwrap());
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        let made = crate::init(&env, &old, &InitConfig::default())
            .await
            .unwrap();
        let (text, report) = backup(&env, &old, KeyAccess::default(), secret("correct horse"))
            .await
            .unwrap();
        assert_eq!(report.keys, 2);
        assert!(!String::from_utf8_lossy(&text).contains("ca/journal"));

        let plain = KeyAccess::default();
        let wrong = secret("battery staple");
        let wrong = restore(&env, &new, plain.clone(), text.clone(), wrong).await;
        assert!(wrong.unwrap_err().to_string().contains("passphrase"));
        assert!(!new.exists(), "nothing is left behind");
        let sealed = KeyAccess {
            secret: Some(secret("another secret")),
            token: None,
        };
        let restored = restore(
            &env,
            &new,
            sealed.clone(),
            text.clone(),
            secret("correct horse"),
        );
        assert_eq!(restored.await.unwrap(), report);
        let again = restore(&env, &new, plain, text, secret("correct horse")).await;
        assert!(again.is_err(), "not over a state that is there");

        let claimed = crate::state::claim(&env, &new, None, sealed).await.unwrap();
        let opened = claimed.open(&env).await.unwrap();
        let settings = opened.settings.unwrap();
        let audit = crate::audit::Audit::load(&env, opened.store.clone())
            .await
            .unwrap();
        let loaded = CaService::load(&env, opened.store.clone(), opened.keys, &settings, audit);
        let ca = loaded.await.unwrap();
        assert_eq!(ca.authority().pin().unwrap(), made.pin);
        let revision = opened.store.commit(Txn::new().put("x", "1")).await.unwrap();
        assert!(revision > report.revision + LEAP, "sidecars never go back");
    }
}
