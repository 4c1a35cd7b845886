//! Sealing: argon2id turns a secret into a key, AES-256-GCM locks data with it.
//!
//! Used for the files of a key store ([`Keyring`]) and for backups ([`seal`], [`unseal`]).

use std::fmt;
use std::path::Path;

use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::Error;

const SHORTEST: usize = 8;
const LONGEST: usize = 64 * 1024;
const SALT: usize = 16;
const KEY: usize = 32;
const NONCE: usize = 12;
const TAG: usize = 16;
/// Sealed under the keyring's own name, to know a wrong secret from a damaged key.
const CHECK: &str = "weft keyring";
/// What a file may ask for, so that a forged one cannot take all of the memory.
const MOST_KIB: u32 = 1024 * 1024;
const MOST_PASSES: u32 = 16;

/// A passphrase, or the content of a key file. Wiped when dropped.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes it. A line end at its end is cut off, as files of passphrases have one.
    ///
    /// # Errors
    /// [`Error::WeakSecret`] below 8 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(bytes);
        while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
            bytes.pop();
        }
        match bytes.len() {
            SHORTEST..=LONGEST => Ok(Self(bytes)),
            len => Err(Error::WeakSecret { len }),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// How a secret becomes a key; stored beside what it locks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kdf {
    kdf: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    salt: String,
}

impl Kdf {
    /// RFC 9106 §4, second recommended option: 64 MiB, three passes, four lanes.
    fn new() -> Result<Self, Error> {
        let mut salt = [0; SALT];
        SystemRandom::new()
            .fill(&mut salt)
            .map_err(|_| crypto("the system gives no randomness"))?;
        Ok(Self {
            kdf: "argon2id".to_owned(),
            memory_kib: 64 * 1024,
            passes: 3,
            lanes: 4,
            salt: STANDARD.encode(salt),
        })
    }

    fn derive(&self, secret: &Secret) -> Result<RandomizedNonceKey, &'static str> {
        if self.kdf != "argon2id" {
            return Err("its key derivation is not argon2id");
        }
        if self.memory_kib > MOST_KIB || self.passes > MOST_PASSES {
            return Err("its key derivation asks for more than a gigabyte or 16 passes");
        }
        let salt = STANDARD
            .decode(&self.salt)
            .map_err(|_| "its salt is not base64")?;
        let params = Params::new(self.memory_kib, self.passes, self.lanes, Some(KEY))
            .map_err(|_| "its key derivation has parameters that argon2id does not take")?;
        let mut key = Zeroizing::new([0; KEY]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(&secret.0, &salt, key.as_mut_slice())
            .map_err(|_| "its salt is too short")?;
        RandomizedNonceKey::new(&AES_256_GCM, key.as_slice()).map_err(|_| "the cipher is not there")
    }
}

fn crypto(reason: &str) -> Error {
    Error::Crypto {
        what: "sealed data",
        reason: reason.to_owned(),
    }
}

/// Nonce, ciphertext, tag. The name is bound in, so that sealed data cannot be put in another's place.
fn lock(key: &RandomizedNonceKey, name: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
    let mut body = Zeroizing::new(plain.to_vec());
    let nonce = key
        .seal_in_place_append_tag(Aad::from(name.as_bytes()), &mut *body)
        .map_err(|_| crypto("the cipher failed"))?;
    let mut out = nonce.as_ref().to_vec();
    out.extend_from_slice(&body);
    Ok(out)
}

fn unlock(key: &RandomizedNonceKey, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = sealed.split_at_checked(NONCE)?;
    if body.len() < TAG {
        return None;
    }
    let nonce = aws_lc_rs::aead::Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut body = Zeroizing::new(body.to_vec());
    let plain = key
        .open_in_place(nonce, Aad::from(name.as_bytes()), &mut body)
        .ok()?
        .len();
    body.truncate(plain);
    Some(body)
}

/// The key that locks the files of one directory.
pub(crate) struct Keyring(RandomizedNonceKey);

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keyring(redacted)")
    }
}

#[derive(Serialize, Deserialize)]
struct KeyringFile {
    #[serde(flatten)]
    kdf: Kdf,
    check: String,
}

impl Keyring {
    /// A new one, and the file that lets it be opened again.
    pub(crate) fn create(secret: &Secret) -> Result<(Self, Vec<u8>), Error> {
        let kdf = Kdf::new()?;
        let key = kdf.derive(secret).map_err(crypto)?;
        let check = STANDARD.encode(lock(&key, CHECK, CHECK.as_bytes())?);
        let text = serde_json::to_vec_pretty(&KeyringFile { kdf, check })
            .map_err(|e| crypto(&e.to_string()))?;
        Ok((Self(key), text))
    }

    pub(crate) fn open(text: &[u8], secret: &Secret, path: &Path) -> Result<Self, Error> {
        let unreadable = |reason| Error::Sealed {
            what: path.display().to_string(),
            reason,
        };
        let file: KeyringFile =
            serde_json::from_slice(text).map_err(|_| unreadable("it is not a keyring of weft"))?;
        let key = file.kdf.derive(secret).map_err(unreadable)?;
        let check = STANDARD
            .decode(&file.check)
            .map_err(|_| unreadable("it is not a keyring of weft"))?;
        match unlock(&key, CHECK, &check) {
            Some(_) => Ok(Self(key)),
            None => Err(Error::WrongSecret {
                path: path.to_owned(),
            }),
        }
    }

    pub(crate) fn seal(&self, name: &str, plain: &[u8]) -> Result<Vec<u8>, Error> {
        lock(&self.0, name, plain)
    }

    pub(crate) fn unseal(&self, name: &str, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        unlock(&self.0, name, sealed)
    }
}

#[derive(Serialize, Deserialize)]
struct SealedFile {
    what: String,
    #[serde(flatten)]
    kdf: Kdf,
    data: String,
}

/// Locks data with a secret, as a JSON text that says what it is.
///
/// # Errors
/// [`Error::Crypto`], which does not happen on a healthy system.
pub fn seal(what: &str, plain: &[u8], secret: &Secret) -> Result<Vec<u8>, Error> {
    let kdf = Kdf::new()?;
    let key = kdf.derive(secret).map_err(crypto)?;
    let data = STANDARD.encode(lock(&key, what, plain)?);
    let what = what.to_owned();
    serde_json::to_vec_pretty(&SealedFile { what, kdf, data }).map_err(|e| crypto(&e.to_string()))
}

/// Opens what [`seal`] locked.
///
/// # Errors
/// [`Error::Sealed`] if it is something else or was changed, or the secret is not the right one: the two cannot be
/// told apart.
pub fn unseal(what: &str, text: &[u8], secret: &Secret) -> Result<Zeroizing<Vec<u8>>, Error> {
    let fail = |reason| Error::Sealed {
        what: format!("the {what}"),
        reason,
    };
    let file: SealedFile =
        serde_json::from_slice(text).map_err(|_| fail("it is not a sealed file of weft"))?;
    if file.what != what {
        return Err(fail("it is a sealed file of another kind"));
    }
    let key = file.kdf.derive(secret).map_err(fail)?;
    let data = STANDARD
        .decode(&file.data)
        .map_err(|_| fail("its data is not base64"))?;
    unlock(&key, what, &data).ok_or_else(|| {
        fail("the passphrase is not the one that it was sealed with, or it was changed")
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_the_secret_and_only_as_what_it_is() {
        let sealed = seal("backup", b"the keys", &secret("correct horse\n")).unwrap();
        assert!(!String::from_utf8_lossy(&sealed).contains("the keys"));
        let open = |what: &str, text: &[u8], word: &str| {
            unseal(what, text, &secret(word))
                .map(|plain| plain.to_vec())
                .map_err(|e| e.to_string())
        };
        assert_eq!(
            open("backup", &sealed, "correct horse").unwrap(),
            b"the keys"
        );
        for (what, text, word, expected) in [
            ("backup", sealed.clone(), "battery staple", "not the one"),
            ("other", sealed.clone(), "correct horse", "another kind"),
            (
                "backup",
                b"{}".to_vec(),
                "correct horse",
                "not a sealed file",
            ),
        ] {
            let error = open(what, &text, word).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_file_that_was_changed_or_asks_for_too_much_is_refused() {
        let sealed = seal("backup", b"the keys", &secret("correct horse")).unwrap();
        let changed = |member: &str, value: serde_json::Value| {
            let mut file: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
            file[member] = value;
            let text = serde_json::to_vec(&file).unwrap();
            unseal("backup", &text, &secret("correct horse"))
                .unwrap_err()
                .to_string()
        };
        assert!(changed("data", STANDARD.encode([0; 60]).into()).contains("was changed"));
        assert!(changed("data", "AAAA".into()).contains("was changed"));
        assert!(changed("memory_kib", 4_000_000_000_u32.into()).contains("more than a gigabyte"));
        assert!(changed("kdf", "md5".into()).contains("argon2id"));
        assert!(changed("salt", "!".into()).contains("salt"));
    }
}
