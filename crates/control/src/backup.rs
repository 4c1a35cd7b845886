//! Backup and restore: the whole of a control node's state, sealed, in one file.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use weft_ca::{FileKeyStore, KeyId, KeyStore, Secret, seal, unseal};
use weft_env::Env;
use zeroize::Zeroizing;

use crate::error::ControlError;
use crate::issue::{CaService, read_journal};
use crate::state::{StateDir, hold_empty};
use crate::store::{RedbStore, Revision, Store};

const WHAT: &str = "weft backup";
const VERSION: u32 = 1;
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
    /// Private keys of authorities.
    pub keys: usize,
}

impl Backup {
    fn report(&self) -> BackupReport {
        BackupReport {
            trust_domain: self.trust_domain.clone(),
            revision: self.revision,
            entries: self.entries.len(),
            keys: self.keys.len(),
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
    ca_secret: Option<Arc<Secret>>,
    secret: Arc<Secret>,
) -> Result<(Vec<u8>, BackupReport), ControlError> {
    let dir = crate::state::claim(env, state_dir, None, ca_secret).await?;
    let opened = dir.open(env).await?;
    take(env, opened.store, opened.keys, secret).await
}

/// Backs a running one up. The store is read at one revision.
pub(crate) async fn of_running(
    env: &Env,
    ca: &CaService,
    secret: Arc<Secret>,
) -> Result<Vec<u8>, ControlError> {
    let (store, keys) = (ca.store().clone(), ca.keys());
    take(env, store, keys, secret).await.map(|(text, _)| text)
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
        let keys = journal
            .keys()
            .map(|id| {
                let text = STANDARD.encode(keys.export(id)?);
                Ok((id.clone(), SecretText(Zeroizing::new(text))))
            })
            .collect::<Result<Vec<_>, weft_ca::Error>>()?;
        let entries = range.entries.iter();
        let backup = Backup {
            version: VERSION,
            trust_domain: journal.trust_domain().to_string(),
            revision: range.revision,
            entries: entries
                .map(|entry| (entry.key.clone(), STANDARD.encode(&entry.value)))
                .collect(),
            keys,
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
    ca_secret: Option<Arc<Secret>>,
    text: Vec<u8>,
    secret: Arc<Secret>,
) -> Result<BackupReport, ControlError> {
    let backup: Backup = env
        .disk(move |_| {
            let plain = unseal(WHAT, &text, &secret)?;
            serde_json::from_slice(&plain).map_err(damaged)
        })
        .await?;
    if backup.version != VERSION {
        return Err(ControlError::Backup {
            reason: format!(
                "it is of version {}, this weft knows version {VERSION}",
                backup.version
            ),
        });
    }
    let report = backup.report();
    let dir = hold_empty(env, state_dir, ca_secret.clone()).await?;
    fill(env, &dir, ca_secret, backup).await?;
    Ok(report)
}

async fn fill(
    env: &Env,
    dir: &StateDir,
    ca_secret: Option<Arc<Secret>>,
    backup: Backup,
) -> Result<(), ControlError> {
    let Backup {
        revision,
        entries,
        keys,
        ..
    } = backup;
    let path = dir.keys();
    env.disk(move |_| {
        let store = match ca_secret {
            Some(secret) => FileKeyStore::open_sealed(path, &secret)?,
            None => FileKeyStore::open(path)?,
        };
        for (id, pkcs8) in keys {
            let der = Zeroizing::new(STANDARD.decode(pkcs8.0.as_str()).map_err(damaged)?);
            store.import(&id, der)?;
        }
        Ok::<_, ControlError>(())
    })
    .await?;
    let entries = entries
        .into_iter()
        .map(|(key, value)| Ok((key, STANDARD.decode(value).map_err(damaged)?.into())))
        .collect::<Result<Vec<_>, ControlError>>()?;
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
        let (text, report) = backup(&env, &old, None, secret("correct horse"))
            .await
            .unwrap();
        assert_eq!(report.keys, 2);
        assert!(!String::from_utf8_lossy(&text).contains("ca/journal"));

        let wrong = restore(&env, &new, None, text.clone(), secret("battery staple")).await;
        assert!(wrong.unwrap_err().to_string().contains("passphrase"));
        assert!(!new.exists(), "nothing is left behind");
        let sealed = Some(secret("another secret"));
        let restored = restore(
            &env,
            &new,
            sealed.clone(),
            text.clone(),
            secret("correct horse"),
        );
        assert_eq!(restored.await.unwrap(), report);
        let again = restore(&env, &new, None, text, secret("correct horse")).await;
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
