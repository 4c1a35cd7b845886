//! What proves who this sidecar is: read from its files at each join, as they are replaced while it runs.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use weft_certs::MachineIdentity;
use weft_env::{Disk, Env, Tasks};
use zeroize::Zeroizing;

use crate::Error;
use crate::bootstrap::pins;
use crate::config::{Attestor, SidecarConfig, TokenSource};
use crate::join::{Terms, join};
use crate::node::Node;

/// A token is some 40 characters; a larger file is another file.
const MAX_TOKEN: usize = 1024;
/// As large as the control node reads them (RFC 7519 has no limit).
const MAX_JWT: usize = 16 * 1024;
/// Ten certificates, with text between them.
const MAX_PEM: usize = 256 * 1024;

/// A proof, ready to be sent.
pub(crate) enum Proof {
    /// A one-time join token.
    Token(String),
    /// A machine's certificate and key.
    Machine(MachineIdentity),
    /// A token of a service account.
    Account(String),
}

/// The proof that the settings name, if they name one.
pub(crate) async fn proof(env: &Env, config: &SidecarConfig) -> Result<Option<Proof>, Error> {
    if let Some(attestor) = &config.attestor {
        return read(env, attestor).await.map(Some);
    }
    Ok(read_token(env, &config.token).await?.map(Proof::Token))
}

async fn read(env: &Env, attestor: &Attestor) -> Result<Proof, Error> {
    let attestor = attestor.clone();
    env.disk(move |disk| match attestor {
        Attestor::X509Pop { chain, key } => machine(disk, &chain, &key).map(Proof::Machine),
        Attestor::K8s { token } => account(disk, &token).map(Proof::Account),
    })
    .await
}

fn machine(disk: &Disk, chain: &Path, key: &Path) -> Result<MachineIdentity, Error> {
    let fail = |reason: String| Error::Machine { reason };
    let read = |file: &Path| {
        let read = disk.read(file, MAX_PEM).map(Zeroizing::new);
        read.map_err(|error| fail(error.to_string()))
    };
    let pem = read(chain)?;
    let secret = read(key)?;
    // Of root and readable by a group is how credentials come; readable by everybody is no secret.
    let mode = std::fs::metadata(key).map(|found| found.mode());
    if mode.is_ok_and(|mode| mode & 0o007 != 0) {
        let path = key.display();
        return Err(fail(format!(
            "{path} can be read by every user: make it your own with chmod 600"
        )));
    }
    MachineIdentity::from_pem(&pem, &secret).map_err(|reason| {
        fail(format!(
            "{} and {}: {reason}",
            chain.display(),
            key.display()
        ))
    })
}

fn account(disk: &Disk, path: &Path) -> Result<String, Error> {
    let fail = |reason: String| Error::Account { reason };
    let bytes = disk.read(path, MAX_JWT);
    let bytes = Zeroizing::new(bytes.map_err(|error| fail(error.to_string()))?);
    let text = std::str::from_utf8(&bytes).unwrap_or_default().trim();
    let legal = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    match legal {
        true => Ok(text.to_owned()),
        false => Err(fail(format!("{} does not hold a token", path.display()))),
    }
}

async fn read_token(env: &Env, source: &TokenSource) -> Result<Option<String>, Error> {
    let (text, place) = match source {
        TokenSource::None => return Ok(None),
        TokenSource::Value(text) => (text.clone(), "the token setting".to_owned()),
        TokenSource::File(path) => {
            let (file, place): (PathBuf, _) = (path.clone(), path.display().to_string());
            let read = env.disk(move |disk| disk.read(&file, MAX_TOKEN)).await;
            let bytes = read.map_err(Error::TokenFile)?;
            (String::from_utf8_lossy(&bytes).into_owned(), place)
        }
    };
    let token = text.trim();
    if token.is_empty() || token.len() > MAX_TOKEN || !token.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Error::TokenText(place));
    }
    Ok(Some(token.to_owned()))
}

/// Joining again by itself, once the SVID has ended: never by the certificate that has ended, always by a new proof.
pub(crate) struct Again {
    pub(crate) attestor: Attestor,
    /// But for the pins, which are those of the roots that are trusted then.
    pub(crate) terms: Terms,
    /// Owner of the connection.
    pub(crate) tasks: Tasks,
}

impl Again {
    /// What the settings and the identity in use make possible.
    pub(crate) fn new(config: &SidecarConfig, node: &Arc<Node>, tasks: &Tasks) -> Option<Self> {
        Some(Self {
            attestor: config.attestor.clone()?,
            terms: Terms {
                control: config.control.clone(),
                delegate: config.delegate.clone(),
                trust_domain: node.id.trust_domain().clone(),
                pins: Vec::new(),
                key_exchange: config.key_exchange,
                tcp_fallback: config.tcp_fallback,
            },
            tasks: tasks.clone(),
        })
    }

    /// A new SVID, with the bundles of now.
    pub(crate) async fn join(
        &self,
        node: &Node,
    ) -> Result<(weft_certs::X509Svid, weft_certs::BundleSet), Error> {
        let proof = read(&node.env, &self.attestor).await?;
        let bundles = &node.identity.current().bundles;
        let terms = Terms {
            pins: pins(bundles, &self.terms.trust_domain),
            ..self.terms.clone()
        };
        join(&node.env, &self.tasks, &terms, &proof).await
    }
}
