//! How a delegate comes to be, on its own machine: a key that never leaves it, a token, a certificate.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use weft_ca::{CaConfig, Journal, KeyId, Tier, delegate_request};
use weft_certs::{CertificateDer, RootPin, TrustBundle, TrustDomain};
use weft_env::{Env, Tasks};
use weft_transport::{Connection, JoinConfig, join_connection};
use weft_wire::{DelegateRequest, DelegateResponse, PATH_DELEGATE};
use zeroize::Zeroizing;

use super::client::{ask, resolve};
use crate::error::ControlError;
use crate::issue::{JOURNAL, Keys, read_journal};
use crate::keys::KeyAccess;
use crate::mesh::Wire;
use crate::settings::{MeshSettings, SETTINGS};
use crate::state::{Opened, StateDir, check_mine, hold};
use crate::store::{Condition, Txn, json};

/// The one key of a delegate.
const KEY: &str = "delegate";

/// What makes a control node the delegate of a site.
#[derive(Clone)]
pub struct DelegateConfig {
    /// The control nodes that it stands in for, as `host:port`, tried in this order.
    pub control: Vec<String>,
    /// Trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// The mesh's root. Needed with a token.
    pub pin: Option<RootPin>,
    /// What lets it in, as `weft ca delegate create` prints it. Needed at the first start, and after its certificate has
    /// ended.
    pub token: Option<Zeroizing<String>>,
}

impl std::fmt::Debug for DelegateConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelegateConfig")
            .field("control", &self.control)
            .field("token", &self.token.as_ref().map(|_| "redacted"))
            .finish_non_exhaustive()
    }
}

fn refused(reason: impl Into<String>) -> ControlError {
    ControlError::NotADelegate {
        reason: reason.into(),
    }
}

/// Takes the state directory of a delegate. One without a state, or whose certificate has ended, is filled by a token.
pub(crate) async fn claim(
    env: &Env,
    tasks: &Tasks,
    path: &Path,
    access: KeyAccess,
    (config, wire): (&DelegateConfig, Wire),
) -> Result<StateDir, ControlError> {
    check_mine(env, path).await?;
    let dir = hold(env, path, access).await?;
    if !dir.is_initialised(env).await? {
        let opened = dir.begin(env, &config.trust_domain).await?;
        enrol(env, tasks, &opened, (config, wire)).await?;
        drop(opened);
        dir.finished(env).await;
        return Ok(dir);
    }
    let opened = dir.open(env).await?;
    if opened.settings.as_ref().is_none_or(|s| s.site.is_none()) {
        return Err(refused(format!(
            "{} is the state of a control node; choose another directory for the delegate",
            path.display()
        )));
    }
    let (journal, _) = read_journal(&*opened.store).await?;
    let end = journal.active(Tier::Issuing)?.not_after;
    if end <= env.wall() && config.token.is_some() {
        enrol(env, tasks, &opened, (config, wire)).await?;
    }
    drop(opened);
    Ok(dir)
}

/// The request for the delegate's key, which is made if it is not there yet.
pub(super) async fn request(env: &Env, keys: Keys) -> Result<String, ControlError> {
    let id = KeyId::new(KEY)?;
    let csr = env.disk(move |_| delegate_request(&*keys, &id, weft_ca::KeyType::P256));
    Ok(STANDARD.encode(csr.await?))
}

/// What comes back, as a journal to go on from.
pub(super) fn journal(
    answer: &DelegateResponse,
    domain: &TrustDomain,
    now: std::time::SystemTime,
) -> Result<(Journal, TrustBundle), ControlError> {
    let der = |text: &str| {
        let bytes = STANDARD.decode(text);
        bytes
            .map(CertificateDer::from)
            .map_err(|_| refused("the answer has a certificate that is not base64"))
    };
    let bundle = TrustBundle::from_jwks(domain.clone(), &answer.bundle)
        .map_err(|error| refused(error.to_string()))?;
    let (root, own) = (der(&answer.root)?, der(&answer.certificate)?);
    let journal = Journal::of_delegate(&bundle, &root, own, &KeyId::new(KEY)?, now)?;
    Ok((journal, bundle))
}

async fn enrol(
    env: &Env,
    tasks: &Tasks,
    opened: &Opened,
    (config, wire): (&DelegateConfig, Wire),
) -> Result<(), ControlError> {
    let token = config.token.as_ref().ok_or_else(|| {
        refused("it needs a token: make one at the control node with `weft ca delegate create`, and give it with --token-file")
    })?;
    let pin = config.pin.ok_or_else(|| {
        refused("it needs the root's pin: give it with --pin, as `weft ca show` prints it at the control node")
    })?;
    let request = DelegateRequest {
        token: token.trim().to_owned(),
        csr: request(env, opened.keys.clone()).await?,
    };
    let connection = reach(env, tasks, config, pin, wire).await?;
    let answer: DelegateResponse = ask(&connection, PATH_DELEGATE, &request)
        .await
        .map_err(|error| refused(error.to_string()))?;
    let (journal, bundle) = journal(&answer, &config.trust_domain, env.wall())?;
    if !bundle.has_pin(&pin) {
        return Err(refused(
            "the trust bundle that came does not have the pinned root",
        ));
    }
    let settings = settings(&answer, &config.trust_domain);
    settings.ca_config().validate()?;
    // Whether the key is that of the certificate shows when it is loaded, before anything is stored.
    let (keys, ca_config, loaded) = (opened.keys.clone(), settings.ca_config(), journal.clone());
    let load = env.disk(move |_| weft_ca::Authority::load(ca_config, loaded, &*keys));
    load.await?;
    let trust = format!("trust/{}", config.trust_domain);
    let txn = Txn::new()
        .put(SETTINGS, json(&settings))
        .put(JOURNAL, json(&journal))
        .put(trust, json(&bundle.to_jwks()));
    let txn = match opened.settings {
        Some(_) => txn.when(Condition::Exists(SETTINGS.to_owned())),
        None => txn.when(Condition::Absent(SETTINGS.to_owned())),
    };
    opened.store.commit(txn).await?;
    tracing::info!(site = answer.site, "enrolled as the delegate of a site");
    Ok(())
}

fn settings(answer: &DelegateResponse, domain: &TrustDomain) -> MeshSettings {
    let terms = &answer.terms;
    MeshSettings {
        trust_domain: domain.clone(),
        leaf_ttl_s: terms.leaf_ttl_s,
        issuing_ttl_s: terms.issuing_ttl_s,
        root_ttl_s: terms.root_ttl_s,
        max_leaf_ttl_s: terms.max_leaf_ttl_s,
        key_type: CaConfig::new(domain.clone()).key_type,
        certificates_per_s: terms.certificates_per_s.max(1),
        site: Some(answer.site.clone()),
    }
}

/// A connection to a control node that the pin is of. Nothing is sent to anybody else.
async fn reach(
    env: &Env,
    tasks: &Tasks,
    config: &DelegateConfig,
    pin: RootPin,
    wire: Wire,
) -> Result<Connection, ControlError> {
    let join = JoinConfig {
        pin,
        expected: MeshSettings::control_of(&config.trust_domain),
        key_exchange: wire.key_exchange,
        fallback: wire.tcp_fallback,
    };
    let mut tried = Vec::new();
    for address in &config.control {
        match resolve(env, address).await {
            Err(reason) => tried.push(format!("{address}: {reason}")),
            Ok(found) => {
                for addr in found {
                    match join_connection(env, tasks, addr, &join).await {
                        Ok(connection) => return Ok(connection),
                        Err(error) => tried.push(error.to_string()),
                    }
                }
            }
        }
    }
    Err(refused(format!(
        "no control node could be reached: {}; check --control, and that UDP passes",
        tried.join("; ")
    )))
}
