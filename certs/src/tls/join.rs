//! The first contact: no SVID yet, no bundle yet, only the pin of the root and the name of the control node.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::CertificateDer;

use super::client::{PeerVerifier, builder, finish};
use super::{Failure, KeyExchange};
use crate::{
    BundleSet, Clock, ExpectedPeer, PeerIdentity, RootPin, SpiffeId, TrustBundle, VerifyError,
    verify_expected,
};

/// The config of a join: the server must send its root along, the root's key must be the pinned one, the chain must
/// be valid up to exactly that root, and the leaf must be `expected`. Only then may the join token be sent.
pub fn join_config(
    pin: RootPin,
    expected: SpiffeId,
    alpn: &[&[u8]],
    key_exchange: KeyExchange,
    clock: Clock,
    failure: Failure,
) -> ClientConfig {
    let verifier = Arc::new(PeerVerifier::new(failure, move |chain, now| {
        verify_pinned(chain, pin, &expected, now)
    }));
    finish(
        builder(key_exchange, clock, verifier, |builder| {
            builder.with_no_client_auth()
        }),
        alpn,
    )
}

fn verify_pinned(
    chain: &[CertificateDer<'_>],
    pin: RootPin,
    expected: &SpiffeId,
    now: std::time::SystemTime,
) -> Result<PeerIdentity, VerifyError> {
    // The leaf is never its own authority, hence the skip.
    let root = chain
        .iter()
        .skip(1)
        .find(|certificate| pin.matches(certificate));
    let root = root
        .ok_or_else(|| without_pin(chain, pin, expected))?
        .clone()
        .into_owned();
    let bundle = TrustBundle {
        trust_domain: expected.trust_domain().clone(),
        sequence: 0,
        roots: vec![root],
        jwt_keys: Vec::new(),
    };
    verify_expected(
        chain,
        &BundleSet::from(bundle),
        now,
        &ExpectedPeer::One(expected.clone()),
    )
}

/// Why a chain without the pinned root is refused. Only a control node sends its root along: who says of itself that
/// it is somebody else is not one, whatever the pin, and saying so gives nothing away.
fn without_pin(chain: &[CertificateDer<'_>], pin: RootPin, expected: &SpiffeId) -> VerifyError {
    match chain.first().map(crate::der::leaf) {
        Some(Ok(leaf))
            if leaf.id != *expected && leaf.id.trust_domain() == expected.trust_domain() =>
        {
            VerifyError::OtherRole {
                claimed: leaf.id,
                expected: expected.clone(),
            }
        }
        _ => VerifyError::WrongPin { pin },
    }
}
