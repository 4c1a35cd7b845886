//! Joining: a proof of who this is goes to the control node that the pin is of, an SVID comes back.

use std::net::SocketAddr;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use weft_certs::{
    BundleSet, JoinStatement, MachineIdentity, RootPin, SpiffeId, TrustDomain, VerifyError,
    X509Svid, delegate_id,
};
use weft_env::{Env, Tasks};
use weft_transport::{Connection, DialError, JoinConfig, KeyExchange, join_connection};
use weft_wire::{
    Attestation, BundleResponse, ChallengeResponse, JoinRequest, JoinResponse, MachineProof,
    PATH_BUNDLE, PATH_CHALLENGE, PATH_JOIN,
};

use crate::Error;
use crate::attest::Proof;
use crate::config::Delegate;
use crate::control_client::control_id;
use crate::csr::{self, Pending};
use crate::rpc::{self, CallError};

/// Where, and whom a joiner takes for the control node.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    /// `host:port`, tried in turn.
    pub(crate) control: Vec<String>,
    /// Who is asked when no control node can be reached.
    pub(crate) delegate: Option<Delegate>,
    pub(crate) trust_domain: TrustDomain,
    /// Any of these roots; tried in turn.
    pub(crate) pins: Vec<RootPin>,
    pub(crate) key_exchange: KeyExchange,
    /// Whether TCP is tried where UDP brings no answer.
    pub(crate) tcp_fallback: bool,
}

impl Terms {
    /// Whom to ask, in this order, and who must answer there.
    fn places(&self) -> Vec<(&str, SpiffeId)> {
        let control = control_id(&self.trust_domain);
        let nodes = self.control.iter();
        let mut places: Vec<_> = nodes.map(|a| (a.as_str(), control.clone())).collect();
        if let Some(delegate) = &self.delegate
            && let Ok(id) = delegate_id(&self.trust_domain, &delegate.site)
        {
            places.extend(delegate.addresses.iter().map(|a| (a.as_str(), id.clone())));
        }
        places
    }
}

/// Asks the control nodes in turn, and then the delegate of the site. The first one that can be reached decides; but that a
/// control node does not know a token says nothing of one that the delegate has made.
pub(crate) async fn join(
    env: &Env,
    tasks: &Tasks,
    terms: &Terms,
    proof: &Proof,
) -> Result<(X509Svid, BundleSet), Error> {
    let (mut tried, mut unknown) = (Vec::new(), None);
    for (address, expected) in &terms.places() {
        let found = match resolve(env, address).await {
            Ok(found) => found,
            Err(reason) => {
                tried.push(format!("{address}: {reason}"));
                continue;
            }
        };
        for addr in found {
            match join_at(env, tasks, terms, (addr, expected), proof).await {
                Err(Error::Unreachable { tried: reason }) => tried.push(reason),
                Err(refused) if terms.delegate.is_some() && is_unknown_token(&refused) => {
                    unknown = Some(refused);
                }
                decided => return decided,
            }
        }
    }
    Err(unknown.unwrap_or_else(|| Error::Unreachable {
        tried: tried.join("; "),
    }))
}

fn is_unknown_token(error: &Error) -> bool {
    matches!(error, Error::Refused { code, .. } if code == "token_unknown")
}

/// Whom the mesh trusts, by the word of the first control node that can be reached. It must have the pinned root; nothing
/// is told to it.
pub(crate) async fn bundles(env: &Env, tasks: &Tasks, terms: &Terms) -> Result<BundleSet, Error> {
    let mut tried = Vec::new();
    for address in &terms.control {
        let found = match resolve(env, address).await {
            Ok(found) => found,
            Err(reason) => {
                tried.push(format!("{address}: {reason}"));
                continue;
            }
        };
        for addr in found {
            match bundles_at(env, tasks, terms, addr).await {
                Err(Error::Unreachable { tried: reason }) => tried.push(reason),
                decided => return decided,
            }
        }
    }
    Err(Error::Unreachable {
        tried: tried.join("; "),
    })
}

async fn bundles_at(
    env: &Env,
    tasks: &Tasks,
    terms: &Terms,
    addr: SocketAddr,
) -> Result<BundleSet, Error> {
    let place = addr.to_string();
    let control = control_id(&terms.trust_domain);
    let (connection, pin) = recognised(env, tasks, terms, addr, &control).await?;
    let asked: Result<BundleResponse, _> =
        rpc::call(&connection, PATH_BUNDLE, &serde_json::json!({})).await;
    let answer = asked.map_err(|error| refused(&place, error))?;
    let bundles = csr::bundles(&answer.bundles);
    let bad = |reason: String| Error::BadAnswer {
        addr: place.clone(),
        reason,
    };
    let bundles = bundles.map_err(bad)?;
    let own = bundles.get(&terms.trust_domain);
    match own.is_some_and(|own| own.has_pin(&pin)) {
        true => Ok(bundles),
        false => Err(bad(
            "its trust bundle does not have the pinned root".to_owned()
        )),
    }
}

/// A connection to a control node that has shown one of the pinned roots, and which.
async fn recognised(
    env: &Env,
    tasks: &Tasks,
    terms: &Terms,
    addr: SocketAddr,
    expected: &SpiffeId,
) -> Result<(Connection, RootPin), Error> {
    let place = addr.to_string();
    let mut pins = terms.pins.iter();
    let mut pin = *pins.next().ok_or(Error::NoPin)?;
    loop {
        let join = JoinConfig {
            pin,
            expected: expected.clone(),
            key_exchange: terms.key_exchange,
            fallback: terms.tcp_fallback,
        };
        match (join_connection(env, tasks, addr, &join).await, pins.next()) {
            (Ok(connection), _) => return Ok((connection, pin)),
            (Err(error), Some(next)) if is_wrong_pin(&error) => pin = *next,
            (Err(error), _) => return Err(not_connected(&place, &terms.trust_domain, error)),
        }
    }
}

/// By the first pin that the root there has.
async fn join_at(
    env: &Env,
    tasks: &Tasks,
    terms: &Terms,
    (addr, expected): (SocketAddr, &SpiffeId),
    proof: &Proof,
) -> Result<(X509Svid, BundleSet), Error> {
    let place = addr.to_string();
    let (connection, pin) = recognised(env, tasks, terms, addr, expected).await?;
    let pending = Pending::generate().map_err(|reason| Error::BadSvid {
        addr: place.clone(),
        cause: reason,
    })?;
    let mut request = JoinRequest {
        csr: pending.csr.clone(),
        ..JoinRequest::default()
    };
    match proof {
        Proof::Token(token) => request.token.clone_from(token),
        Proof::Account(token) => {
            request.attestation = Some(Attestation::K8s {
                token: token.clone(),
            });
        }
        Proof::Machine(machine) => {
            let signed = signed(&connection, terms, pin, machine, &pending).await;
            let signed = signed.map_err(|error| refused(&place, error))?;
            request.attestation = Some(Attestation::X509Pop(signed));
        }
    }
    let since = env.wall().duration_since(SystemTime::UNIX_EPOCH);
    request.now_unix_ms = since.ok().and_then(|at| at.as_millis().try_into().ok());
    let answer: JoinResponse = rpc::call(&connection, PATH_JOIN, &request)
        .await
        .map_err(|error| refused(&place, error))?;
    let (svid, bundles) = pending
        .complete(&answer)
        .map_err(|reason| Error::BadAnswer {
            addr: place.clone(),
            reason,
        })?;
    check(&pin, &place, &svid, &bundles, env.wall())?;
    Ok((svid, bundles))
}

/// The challenge of this control node, signed for the key that is to be certified and for nothing else.
async fn signed(
    connection: &Connection,
    terms: &Terms,
    pin: RootPin,
    machine: &MachineIdentity,
    pending: &Pending,
) -> Result<MachineProof, CallError> {
    let asked: ChallengeResponse =
        rpc::call(connection, PATH_CHALLENGE, &serde_json::json!({})).await?;
    let statement = JoinStatement {
        trust_domain: &terms.trust_domain,
        pin: &pin,
        challenge: &asked.challenge,
        csr: &pending.der,
    };
    let signature = machine.prove(&statement).map_err(CallError::Broken)?;
    let chain = machine.chain().iter();
    Ok(MachineProof {
        chain: chain.map(|der| STANDARD.encode(der)).collect(),
        pin: pin.to_string(),
        signature: STANDARD.encode(signature),
        challenge: asked.challenge,
    })
}

fn is_wrong_pin(error: &DialError) -> bool {
    matches!(
        error,
        DialError::Unverified {
            source: VerifyError::WrongPin { .. },
            ..
        }
    )
}

fn not_connected(place: &str, domain: &TrustDomain, error: DialError) -> Error {
    match error {
        DialError::Unverified {
            source: source @ (VerifyError::Expired { .. } | VerifyError::NotYetValid { .. }),
            ..
        } => Error::ClockOff {
            addr: place.to_owned(),
            cause: source.to_string(),
        },
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
    pin: &RootPin,
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
    if !own.is_some_and(|bundle| bundle.has_pin(pin)) {
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
