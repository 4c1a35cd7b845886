//! The first minute: an identity from the state directory, one that is joined for, or one from a provider.

use std::sync::Arc;
use std::time::SystemTime;

use weft_certs::{BundleSet, RootPin, TrustDomain, VerifyError, X509Svid};
use weft_env::mutants::{Mutant, broken};
use weft_env::{Env, Tasks};

use crate::Error;
use crate::attest::proof;
use crate::config::{DEFAULT_TRUST_DOMAIN, SidecarConfig};
use crate::join::{Terms, join};
use crate::provider::{self, First, Provider};
use crate::state_dir::{Saved, StateDir};

/// Who the sidecar is, and how that goes on.
pub(crate) struct Begin {
    pub(crate) svid: X509Svid,
    pub(crate) bundles: BundleSet,
    /// The provider that the identity comes from; `None`: the mesh's own CA.
    pub(crate) from: Option<Arc<Provider>>,
}

impl Begin {
    pub(crate) async fn take(
        env: &Env,
        config: &SidecarConfig,
        tasks: &Tasks,
        state: &StateDir,
        saved: &mut Saved,
    ) -> Result<Self, Error> {
        let Some(socket) = &config.identity else {
            let (svid, bundles) = identity(env, tasks, config, state, saved).await?;
            return Ok(Self {
                svid,
                bundles,
                from: None,
            });
        };
        let First {
            provider,
            svid,
            bundles,
        } = provider::begin(env, tasks, config, socket, state, saved).await?;
        Ok(Self {
            svid,
            bundles,
            from: Some(provider),
        })
    }
}

/// The saved identity if it is valid now, or a new one. What proves who this is is needed, and read, only to join.
async fn identity(
    env: &Env,
    tasks: &Tasks,
    config: &SidecarConfig,
    state: &StateDir,
    saved: &mut Saved,
) -> Result<(X509Svid, BundleSet), Error> {
    let useless = match saved.identity.take() {
        Some((svid, bundles)) => match svid.validate(&bundles, env.wall()) {
            Ok(()) => {
                agrees(config, state, &svid, &bundles, saved.pin)?;
                tracing::info!(id = %svid.id(), serial = svid.serial(), "starting with the saved identity");
                return Ok((svid, bundles));
            }
            Err(cause) => Some((svid, bundles, cause)),
        },
        None => None,
    };
    let proof = match (proof(env, config).await?, &useless) {
        (Some(proof), None) => proof,
        (Some(proof), Some((svid, _, cause))) => {
            tracing::warn!(id = %svid.id(), %cause, "the saved identity cannot be used: joining again");
            proof
        }
        (None, Some((svid, _, cause))) => return Err(useless_error(svid, cause)),
        (None, None) => {
            let dir = state.path().to_owned();
            return Err(Error::NoToken { dir });
        }
    };
    let known = useless.as_ref().filter(|_| config.attestor.is_some());
    let known = known.map(|(svid, bundles, _)| (svid.id().trust_domain(), bundles));
    let terms = terms(config, known, saved.pin);
    state.check_room(env).await?;
    let (svid, bundles) = join(env, tasks, &terms, &proof).await?;
    state.save_instance(env, &saved.instance).await?;
    if let Some(pin) = config.pin {
        state.save_pin(env, pin).await?;
    }
    state.save_identity(env, &svid, &bundles).await?;
    tracing::info!(id = %svid.id(), serial = svid.serial(), "joined");
    if broken(Mutant::LogsItsKey) {
        tracing::info!(svid = svid.to_pem().as_str(), "the identity");
    }
    Ok((svid, bundles))
}

/// The settings must not name another mesh than the saved identity is of: whoever wrote them would go on in the old one
/// unknowingly. The pin may be that of the join, though the root has been replaced since.
fn agrees(
    config: &SidecarConfig,
    state: &StateDir,
    svid: &X509Svid,
    bundles: &BundleSet,
    joined_by: Option<RootPin>,
) -> Result<(), Error> {
    let domain = svid.id().trust_domain();
    let other = |setting: String| Error::OtherMesh {
        setting,
        id: svid.id().clone(),
        dir: state.path().to_owned(),
    };
    if let Some(named) = config
        .trust_domain
        .as_ref()
        .filter(|named| *named != domain)
    {
        return Err(other(format!("--trust-domain {named}")));
    }
    let (Some(pin), Some(joined_by)) = (config.pin, joined_by) else {
        return Ok(());
    };
    let trusted = bundles.get(domain).is_some_and(|own| own.has_pin(&pin));
    match pin == joined_by || trusted {
        true => Ok(()),
        false => Err(other(format!("--pin {pin}"))),
    }
}

fn useless_error(svid: &X509Svid, cause: &VerifyError) -> Error {
    let since = |at: SystemTime| {
        let at = at
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        at.as_secs()
    };
    let cause = match cause {
        VerifyError::Expired { not_after, now, .. } => format!(
            "has expired ({} s ago by this machine's clock)",
            since(*now).saturating_sub(since(*not_after))
        ),
        VerifyError::NotYetValid {
            not_before, now, ..
        } => format!(
            "is not valid before {} s from now by this machine's clock: set the clock",
            since(*not_before).saturating_sub(since(*now))
        ),
        other => format!("is not usable: {other}"),
    };
    Error::SavedIdentity {
        id: svid.id().clone(),
        cause,
    }
}

/// On what terms to join. Who joins again by itself knows the mesh by the roots that it has trusted last, which the pin
/// of its first join need not be among any more; unless the pin was changed since: then an operator says which mesh.
fn terms(
    config: &SidecarConfig,
    known: Option<(&TrustDomain, &BundleSet)>,
    joined_by: Option<RootPin>,
) -> Terms {
    let domain = match (&config.trust_domain, known) {
        (Some(domain), _) => domain.clone(),
        (None, Some((domain, _))) => domain.clone(),
        (None, None) => {
            TrustDomain::parse(DEFAULT_TRUST_DOMAIN).expect("a constant that is a legal name")
        }
    };
    let said = config.pin.filter(|pin| joined_by != Some(*pin));
    let roots = known.filter(|_| said.is_none());
    let roots = roots.map_or_else(Vec::new, |(_, bundles)| pins(bundles, &domain));
    let pins = match roots.is_empty() {
        true => config.pin.into_iter().collect(),
        false => roots,
    };
    Terms {
        control: config.control.clone(),
        delegate: config.delegate.clone(),
        trust_domain: domain,
        pins,
        key_exchange: config.key_exchange,
        tcp_fallback: config.tcp_fallback,
    }
}

/// The pins of all roots of a trust domain.
pub(crate) fn pins(bundles: &BundleSet, domain: &TrustDomain) -> Vec<RootPin> {
    let roots = bundles.get(domain).map(|bundle| bundle.roots.as_slice());
    let roots = roots.unwrap_or_default().iter();
    roots.filter_map(|root| RootPin::of(root).ok()).collect()
}
