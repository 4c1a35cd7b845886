//! Where the link leads: to a control node, or while none can be reached to the delegate of the site.

use std::time::{Duration, SystemTime};

use weft_certs::{ExpectedPeer, Site, SpiffeId, X509Svid, delegate_id};
use weft_transport::{Connection, Target};

use super::control_id;
use crate::config::Delegate;
use crate::node::Node;

/// Addresses of both.
#[derive(Debug, Clone)]
pub(crate) struct Homes {
    /// Control nodes as `host:port`.
    pub(crate) control: Vec<String>,
    /// Who stands in for them.
    pub(crate) delegate: Option<Delegate>,
}

/// At which of the two a link ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Home {
    /// A control node, by its place in the list.
    Control(usize),
    Delegate,
}

impl Home {
    /// The control node to try first.
    pub(super) fn first(self) -> usize {
        match self {
            Self::Control(index) => index,
            Self::Delegate => 0,
        }
    }
}

/// Whether a sidecar without a control node turns to the delegate of its site: not at once, for a control node that is
/// started anew costs nobody anything. It does when two thirds of its certificate's life are over; when it has no snapshot,
/// and so serves nothing; and when its certificate is the delegate's, so that it is on the island already.
pub(super) fn is_cut_off(svid: &X509Svid, has_snapshot: bool, now: SystemTime) -> bool {
    let left = svid.not_after().duration_since(now).unwrap_or_default();
    !has_snapshot || is_of_delegate(svid) || is_late(left, svid.half_life())
}

/// A third of the life, of which half is given, or less.
fn is_late(left: Duration, half_life: Duration) -> bool {
    left <= half_life * 2 / 3
}

/// Whether a delegate has issued it.
pub(super) fn is_of_delegate(svid: &X509Svid) -> bool {
    let domain = svid.id().trust_domain();
    let issuer = svid.chain().get(1);
    issuer.is_some_and(|der| Site::of_certificate(der, domain).is_some())
}

impl Homes {
    /// Tries the control nodes in turn, from `first` on. The reasons of all if none answers.
    pub(super) async fn dial_control(
        &self,
        node: &Node,
        first: usize,
    ) -> Result<(Home, Connection), String> {
        let expected = control_id(node.id.trust_domain());
        let dialled = dial(node, &self.control, first, &expected).await;
        dialled.map(|(index, connection)| (Home::Control(index), connection))
    }

    /// Tries the delegate of the site.
    pub(super) async fn dial_delegate(&self, node: &Node) -> Result<(Home, Connection), String> {
        let delegate = self.delegate.as_ref().ok_or("this site has no delegate")?;
        let expected = delegate_id(node.id.trust_domain(), &delegate.site)
            .map_err(|error| error.to_string())?;
        let dialled = dial(node, &delegate.addresses, 0, &expected).await;
        dialled.map(|(_, connection)| (Home::Delegate, connection))
    }
}

async fn dial(
    node: &Node,
    addresses: &[String],
    first: usize,
    expected: &SpiffeId,
) -> Result<(usize, Connection), String> {
    let mut tried = Vec::new();
    for step in 0..addresses.len() {
        let index = (first + step) % addresses.len();
        let address = &addresses[index];
        match dial_one(node, address, expected).await {
            Ok(connection) => return Ok((index, connection)),
            Err(reason) => tried.push(format!("{address}: {reason}")),
        }
    }
    Err(tried.join("; "))
}

async fn dial_one(node: &Node, address: &str, expected: &SpiffeId) -> Result<Connection, String> {
    let expected = ExpectedPeer::One(expected.clone());
    let mut last = "the name has no address".to_owned();
    for addr in crate::join::resolve(&node.env, address).await? {
        let target = Target::control(addr, expected.clone());
        match node.pool.connection(&target).await {
            Ok(connection) => return Ok(connection),
            Err(error) => last = error.to_string(),
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delegate_is_turned_to_when_a_third_of_the_life_is_left() {
        let (s, half) = (Duration::from_secs, Duration::from_secs(1_800));
        assert!(!is_late(s(3_600), half));
        assert!(
            !is_late(s(1_201), half),
            "a renewal is late by then, and tried"
        );
        assert!(is_late(s(1_200), half));
        assert!(is_late(Duration::ZERO, half));
    }
}
