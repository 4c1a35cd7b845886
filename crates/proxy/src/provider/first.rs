//! The first identity from a provider, and what else such a sidecar needs before it can begin.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use weft_certs::{BundleSet, RootPin, X509Svid};
use weft_env::{Env, Tasks};
use weft_workload::{Provided, ProviderError, Subscription};

use super::{Provider, address, merged};
use crate::Error;
use crate::backoff::Backoff;
use crate::config::SidecarConfig;
use crate::dice::Dice;
use crate::join::{self, Terms};
use crate::state_dir::{Saved, StateDir};

/// A provider that starts along with this sidecar has so long; then a supervisor tries again.
const START: Duration = Duration::from_secs(10);
/// First and longest wait before it is asked again meanwhile, with full jitter.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));

/// What a sidecar begins with whose identity comes from elsewhere.
pub(crate) struct First {
    pub(crate) provider: Arc<Provider>,
    pub(crate) svid: X509Svid,
    pub(crate) bundles: BundleSet,
}

/// Takes the identity from the provider on `socket`. No key of it is written anywhere.
pub(crate) async fn begin(
    env: &Env,
    tasks: &Tasks,
    config: &SidecarConfig,
    socket: &Path,
    state: &StateDir,
    saved: &Saved,
) -> Result<First, Error> {
    if saved.identity.is_some() {
        return Err(Error::KeyOnDisk {
            dir: state.path().to_owned(),
        });
    }
    let (subscription, provided) = first(env, tasks, socket).await?;
    let Provided { svid, bundles } = provided;
    let domain = svid.id().trust_domain();
    if let Some(named) = config
        .trust_domain
        .as_ref()
        .filter(|named| *named != domain)
    {
        return Err(Error::ForeignProvider {
            address: address(socket),
            id: svid.id().clone(),
            trust_domain: named.clone(),
        });
    }
    let known = state.pushed_bundles(env).await?;
    let pushed = match asks(&known, config.pin, saved.pin, domain) {
        None => known,
        Some(pin) => {
            let terms = Terms {
                control: config.control.clone(),
                delegate: None,
                trust_domain: domain.clone(),
                pins: vec![pin],
                key_exchange: config.key_exchange,
                tcp_fallback: config.tcp_fallback,
            };
            let pushed = join::bundles(env, tasks, &terms).await?;
            state.save_bundles(env, &pushed).await?;
            state.save_pin(env, pin).await?;
            pushed
        }
    };
    let together = merged(&bundles, &pushed);
    svid.validate(&together, env.wall())
        .map_err(|cause| Error::ProvidedSvid {
            address: address(socket),
            cause,
        })?;
    state.save_instance(env, &saved.instance).await?;
    tracing::info!(id = %svid.id(), serial = svid.serial(), from = address(socket), "starting with an identity from elsewhere");
    Ok(First {
        provider: Arc::new(Provider::new(
            socket.to_owned(),
            subscription,
            bundles,
            pushed,
        )),
        svid,
        bundles: together,
    })
}

/// Whether the control node is to be asked whom the mesh trusts, by which pin. Not by one that was asked by before: its
/// root may have been replaced since.
fn asks(
    known: &BundleSet,
    pin: Option<RootPin>,
    asked_by: Option<RootPin>,
    domain: &weft_certs::TrustDomain,
) -> Option<RootPin> {
    let pin = pin?;
    let own = known.get(domain);
    let trusted = own.is_some_and(|own| own.has_pin(&pin));
    let knows = own.is_some() && (trusted || asked_by == Some(pin));
    (!knows).then_some(pin)
}

/// The first message, which is waited for if the provider is not ready yet.
async fn first(env: &Env, tasks: &Tasks, socket: &Path) -> Result<(Subscription, Provided), Error> {
    let (began, dice) = (Instant::now(), Dice::new(env, "provider"));
    let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
    let mut said: Option<String> = None;
    loop {
        let cause = match Subscription::open(tasks, socket).await {
            Ok(opened) => return Ok(opened),
            Err(cause) => cause,
        };
        let wait = backoff.next(dice.draw());
        if cause.is_final() || began.elapsed() + wait >= START {
            return Err(no_identity(socket, cause));
        }
        let reason = cause.to_string();
        if said.as_ref() != Some(&reason) {
            tracing::warn!(
                from = address(socket),
                reason,
                "no identity yet: asking again"
            );
            said = Some(reason);
        }
        sleep(wait).await;
    }
}

fn no_identity(socket: &Path, cause: ProviderError) -> Error {
    Error::NoIdentity {
        address: address(socket),
        next_step: cause.next_step(),
        cause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use weft_certs::TrustDomain;

    #[test]
    fn the_control_node_is_asked_by_a_pin_that_is_new() {
        let domain = TrustDomain::parse("mesh").unwrap();
        let pin = |digit: &str| RootPin::parse(&format!("sha256:{}", digit.repeat(64))).unwrap();
        let known = BundleSet::from(weft_certs::TrustBundle {
            trust_domain: domain.clone(),
            sequence: 1,
            roots: Vec::new(),
            jwt_keys: Vec::new(),
        });
        let none = BundleSet::new();
        let cases = [
            (&none, None, None, None),
            (&none, Some(pin("a")), None, Some(pin("a"))),
            // The state directory was lost but for the pin.
            (&none, Some(pin("a")), Some(pin("a")), Some(pin("a"))),
            (&known, Some(pin("a")), Some(pin("a")), None),
            (&known, Some(pin("b")), Some(pin("a")), Some(pin("b"))),
            (&known, None, Some(pin("a")), None),
        ];
        for (known, given, before, expected) in cases {
            assert_eq!(
                asks(known, given, before, &domain),
                expected,
                "{given:?} after {before:?}"
            );
        }
    }
}
