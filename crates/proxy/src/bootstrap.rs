//! The first minute: an identity from the state directory, or one that is joined for.

use std::net::SocketAddr;
use std::time::SystemTime;

use weft_certs::{BundleSet, RootPin, TrustDomain, VerifyError, X509Svid};
use weft_env::mutants::{Mutant, broken};
use weft_env::{DiskError, Env, Tasks};
use weft_transport::{DialError, JoinConfig, join_connection};
use weft_wire::{JoinRequest, JoinResponse, PATH_JOIN};

use crate::Error;
use crate::config::{DEFAULT_TRUST_DOMAIN, SidecarConfig, TokenSource};
use crate::control_client::control_id;
use crate::csr::Pending;
use crate::rpc::{self, CallError};
use crate::state_dir::{Saved, StateDir};

/// A token is some 40 characters; a larger file is another file.
const MAX_TOKEN: usize = 1024;

/// The saved identity if it is valid now, or a new one. A token is needed, and read, only to join.
pub(crate) async fn identity(
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
            Err(cause) => Some((svid, cause)),
        },
        None => None,
    };
    let token = match (read_token(env, &config.token).await?, useless) {
        (Some(token), None) => token,
        (Some(token), Some((svid, cause))) => {
            tracing::warn!(id = %svid.id(), %cause, "the saved identity cannot be used: joining again");
            token
        }
        (None, Some((svid, cause))) => return Err(useless_error(&svid, &cause)),
        (None, None) => {
            let dir = state.path().to_owned();
            return Err(Error::NoToken { dir });
        }
    };
    state.check_room(env).await?;
    let (svid, bundles) = join(env, tasks, config, token).await?;
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

async fn read_token(env: &Env, source: &TokenSource) -> Result<Option<String>, Error> {
    let (text, place) = match source {
        TokenSource::None => return Ok(None),
        TokenSource::Value(text) => (text.clone(), "the token setting".to_owned()),
        TokenSource::File(path) => {
            let (file, place) = (path.clone(), path.display().to_string());
            let read: Result<Vec<u8>, DiskError> =
                env.disk(move |disk| disk.read(&file, MAX_TOKEN)).await;
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

/// Asks the control nodes in turn. The first one that can be reached decides.
async fn join(
    env: &Env,
    tasks: &Tasks,
    config: &SidecarConfig,
    token: String,
) -> Result<(X509Svid, BundleSet), Error> {
    let mut tried = Vec::new();
    for address in &config.control {
        let found = match resolve(env, address).await {
            Ok(found) => found,
            Err(reason) => {
                tried.push(format!("{address}: {reason}"));
                continue;
            }
        };
        for addr in found {
            match join_at(env, tasks, config, addr, &token).await {
                Err(Error::Unreachable { tried: reason }) => tried.push(reason),
                decided => return decided,
            }
        }
    }
    Err(Error::Unreachable {
        tried: tried.join("; "),
    })
}

async fn join_at(
    env: &Env,
    tasks: &Tasks,
    config: &SidecarConfig,
    addr: SocketAddr,
    token: &str,
) -> Result<(X509Svid, BundleSet), Error> {
    let pin = config.pin.ok_or(Error::NoPin)?;
    let place = addr.to_string();
    let domain = match &config.trust_domain {
        Some(domain) => domain.clone(),
        None => TrustDomain::parse(DEFAULT_TRUST_DOMAIN).expect("a constant that is a legal name"),
    };
    let join = JoinConfig {
        pin,
        expected: control_id(&domain),
        key_exchange: config.key_exchange,
    };
    let connection = join_connection(env, tasks, addr, &join)
        .await
        .map_err(|error| not_connected(&place, &domain, error))?;
    let pending = Pending::generate().map_err(|reason| Error::BadSvid {
        addr: place.clone(),
        cause: reason,
    })?;
    let since = env.wall().duration_since(SystemTime::UNIX_EPOCH);
    let request = JoinRequest {
        now_unix_ms: since.ok().and_then(|at| at.as_millis().try_into().ok()),
        token: token.to_owned(),
        csr: pending.csr.clone(),
    };
    let answer: JoinResponse = rpc::call(&connection, PATH_JOIN, &request)
        .await
        .map_err(|error| refused(&place, error))?;
    let (svid, bundles) = pending
        .complete(&answer)
        .map_err(|reason| Error::BadAnswer {
            addr: place.clone(),
            reason,
        })?;
    check(config, &place, &svid, &bundles, env.wall())?;
    Ok((svid, bundles))
}

fn not_connected(place: &str, domain: &TrustDomain, error: DialError) -> Error {
    match error {
        DialError::Unverified { source, .. } => Error::WrongControl {
            addr: place.to_owned(),
            cause: match &source {
                VerifyError::UnknownTrustDomain { trust_domain, .. } => format!(
                    "it is of the trust domain {trust_domain}, not of {domain}; if that is the mesh to join, pass --trust-domain {trust_domain}"
                ),
                VerifyError::OtherRole { claimed, .. } => format!(
                    "it calls itself {claimed}; give --control the address of `weft control`, port 15008 unless it was set otherwise"
                ),
                other => other.to_string(),
            },
        },
        other => Error::Unreachable {
            tried: other.to_string(),
        },
    }
}

fn refused(place: &str, error: CallError) -> Error {
    let addr = place.to_owned();
    match error {
        CallError::Refused(problem) => Error::Refused {
            addr,
            code: problem.code,
            message: problem.message,
        },
        CallError::Broken(reason) | CallError::Malformed(reason) => {
            Error::BadAnswer { addr, reason }
        }
    }
}

/// What came must hold here and now: the pinned root in the bundle, and the SVID by that bundle and this
/// machine's clock.
fn check(
    config: &SidecarConfig,
    place: &str,
    svid: &X509Svid,
    bundles: &BundleSet,
    now: SystemTime,
) -> Result<(), Error> {
    let fail = |cause: String| Error::BadSvid {
        addr: place.to_owned(),
        cause,
    };
    let own = bundles.get(svid.id().trust_domain());
    let pinned = match (own, &config.pin) {
        (Some(bundle), Some(pin)) => bundle.has_pin(pin),
        _ => false,
    };
    if !pinned {
        return Err(fail(
            "its trust bundle does not have the pinned root".to_owned(),
        ));
    }
    if svid.id().service().is_none() {
        return Err(fail(format!(
            "{} is not the identity of a service",
            svid.id()
        )));
    }
    svid.validate(bundles, now)
        .map_err(|error| fail(error.to_string()))
}

/// The addresses behind `host:port`.
pub(crate) async fn resolve(env: &Env, address: &str) -> Result<Vec<SocketAddr>, String> {
    let wrong = || "it is not HOST:PORT".to_owned();
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let host = host
        .strip_prefix('[')
        .and_then(|h| h.strip_suffix(']'))
        .unwrap_or(host);
    env.resolve(host, port)
        .await
        .map_err(|error| error.to_string())
}
