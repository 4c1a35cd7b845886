//! Passphrases and key files.

use std::path::Path;
use std::sync::Arc;

use weft_control::Secret;
use weft_env::Env;

use crate::cli::SecretArgs;
use crate::failure::Failure;

/// Larger than any passphrase.
const MAX: usize = 64 * 1024;

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
            "see that the file that is named with --ca-secret-file or --secret-file is there and is yours",
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

/// The one that seals the authority's keys, if one is named.
pub(super) async fn of_keys(args: &SecretArgs) -> Result<Option<Arc<Secret>>, Failure> {
    match &args.ca_secret_file {
        Some(path) => read(path).await.map(Some),
        None => Ok(None),
    }
}
