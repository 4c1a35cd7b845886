//! Passphrases, key files and PINs.

use std::path::Path;
use std::sync::Arc;

use weft_control::{KeyAccess, Pin, Secret, TokenAccess};
use weft_env::Env;

use crate::cli::KeyArgs;
use crate::failure::Failure;

/// Larger than any passphrase.
const MAX: usize = 64 * 1024;
/// The PIN itself, where no file is at hand.
const PIN: &str = "WEFT_PKCS11_PIN";

/// A token out of its file. It is good once, so the file's mode is its owner's affair.
pub(super) async fn token(path: &Path) -> Result<zeroize::Zeroizing<String>, Failure> {
    let file = path.to_owned();
    let read = Env::system().disk(move |disk| disk.read(&file, MAX)).await;
    let bytes = read.map(zeroize::Zeroizing::new).map_err(|error| {
        Failure::new(
            "read the token",
            error,
            "see that the file that is named with --token-file is there and is yours",
        )
    })?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(zeroize::Zeroizing::new(text.trim().to_owned()))
}

/// The bytes of a file that only its owner should read.
pub(super) async fn bytes(path: &Path) -> Result<zeroize::Zeroizing<Vec<u8>>, Failure> {
    use std::os::unix::fs::PermissionsExt;
    let file = path.to_owned();
    let env = Env::system();
    let read = env.disk(move |disk| {
        let mode = std::fs::metadata(&file).map(|m| m.permissions().mode());
        (disk.read(&file, MAX), mode)
    });
    let (bytes, mode) = read.await;
    let bytes = bytes.map_err(|error| {
        Failure::new(
            "read the secret",
            error,
            "see that the file that is named with --ca-secret-file, --pkcs11-pin-file or --secret-file is there and is yours",
        )
    })?;
    if mode.is_ok_and(|mode| mode & 0o077 != 0) {
        return Err(Failure::new(
            "read the secret",
            format!("{} can be read by other users", path.display()),
            "make it your own with chmod 600, and choose another secret if it was seen",
        ));
    }
    Ok(zeroize::Zeroizing::new(bytes))
}

/// A secret from a file.
pub(super) async fn read(path: &Path) -> Result<Arc<Secret>, Failure> {
    let bytes = bytes(path).await?;
    Secret::new(bytes.to_vec())
        .map(Arc::new)
        .map_err(|error| Failure::because("read the secret", &error))
}

/// What reaches the authority's keys, as far as it is given.
pub(super) async fn of_keys(args: &KeyArgs) -> Result<KeyAccess, Failure> {
    let secret = match &args.ca_secret_file {
        Some(path) => Some(read(path).await?),
        None => None,
    };
    let pin = pin(args).await?;
    let is_token = pin.is_some() || args.pkcs11_module.is_some() || args.pkcs11_token.is_some();
    let token = TokenAccess {
        module: args.pkcs11_module.clone(),
        label: args.pkcs11_token.clone(),
        pin,
    };
    Ok(KeyAccess {
        secret,
        token: is_token.then_some(token),
    })
}

/// The PIN of a token: of its file, or of the environment.
async fn pin(args: &KeyArgs) -> Result<Option<Pin>, Failure> {
    let (bytes, whence) = match &args.pkcs11_pin_file {
        Some(path) => (bytes(path).await?, path.display().to_string()),
        None => match std::env::var_os(PIN) {
            Some(text) => (
                zeroize::Zeroizing::new(text.into_encoded_bytes()),
                PIN.to_owned(),
            ),
            None => return Ok(None),
        },
    };
    Pin::new(bytes).map(Some).ok_or_else(|| {
        Failure::new(
            "read the PIN",
            format!("{whence} is empty, longer than 255 bytes or not UTF-8"),
            "put the PIN of the token's user there, and nothing else",
        )
    })
}
