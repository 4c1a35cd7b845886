//! How long a connection may live: as long as both certificates, and no longer. Pure decisions.

use std::fmt;
use std::time::{Duration, SystemTime};

use crate::Direction;
use crate::warden::LONGEST_SLEEP;

/// New requests move to a new connection this long before the old one must end: a minute, or a tenth of
/// a short certificate's time.
const LONGEST_MARGIN: Duration = Duration::from_secs(60);

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum EndReason {
    /// Our own certificate was replaced: the peer should know the new one.
    OwnCertificateReplaced,
    /// Our own certificate ends.
    OwnCertificateEnds,
    /// The peer's certificate ends.
    PeerCertificateEnds,
    /// The trust bundle no longer vouches for the peer.
    PeerNotTrusted,
    /// An operator has revoked the peer.
    PeerRevoked,
    /// It went over TCP, and UDP passes again.
    QuicIsBack,
    /// No request for a while.
    Idle,
    /// The peer asked for it (GOAWAY).
    PeerGoingAway,
    /// This node is shutting down.
    ShuttingDown,
    /// Another process of this node has taken over.
    HandedOver,
    /// The connection is lost or was closed by the peer.
    Lost,
}

impl EndReason {
    /// A stable label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::OwnCertificateReplaced => "own_certificate_replaced",
            Self::OwnCertificateEnds => "own_certificate_ends",
            Self::PeerCertificateEnds => "peer_certificate_ends",
            Self::PeerNotTrusted => "peer_not_trusted",
            Self::PeerRevoked => "peer_revoked",
            Self::QuicIsBack => "quic_is_back",
            Self::Idle => "idle",
            Self::PeerGoingAway => "peer_going_away",
            Self::ShuttingDown => "shutting_down",
            Self::HandedOver => "handed_over",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for EndReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnCertificateReplaced => "the certificate was replaced",
            Self::OwnCertificateEnds => "the certificate of this end has reached its end",
            Self::PeerCertificateEnds => "the certificate of the peer has reached its end",
            Self::PeerNotTrusted => "the trust bundle no longer vouches for the peer",
            Self::PeerRevoked => "the peer is revoked",
            Self::QuicIsBack => "UDP passes again",
            Self::Idle => "no request for a while",
            Self::PeerGoingAway => "the peer is going away",
            Self::ShuttingDown => "the node is shutting down",
            Self::HandedOver => "another process of the node has taken over",
            Self::Lost => "the connection was lost",
        })
    }
}

/// What a connection's life depends on.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    pub(crate) direction: Direction,
    /// The wall clock at its start.
    pub(crate) opened: SystemTime,
    /// Generation of the SVID that we presented.
    pub(crate) generation: u64,
    /// End of that SVID; `None` when we presented none (joining).
    pub(crate) own_not_after: Option<SystemTime>,
    /// End of the peer's; `None` when it presented none.
    pub(crate) peer_not_after: Option<SystemTime>,
}

/// What to do with a connection now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// No new requests; what is under way ends in peace.
    Retire(EndReason),
    Close(EndReason),
}

impl Terms {
    /// The moment after which the connection must not live, and whose certificate says so.
    fn end(&self) -> Option<(SystemTime, EndReason)> {
        let own = self
            .own_not_after
            .map(|end| (end, EndReason::OwnCertificateEnds));
        let peer = self
            .peer_not_after
            .map(|end| (end, EndReason::PeerCertificateEnds));
        match (own, peer) {
            (Some(own), Some(peer)) => Some(if own.0 < peer.0 { own } else { peer }),
            (one, other) => one.or(other),
        }
    }

    fn margin(&self, end: SystemTime) -> Duration {
        let life = end.duration_since(self.opened).unwrap_or_default();
        (life / 10).min(LONGEST_MARGIN)
    }

    /// `generation` is that of the SVID in use now.
    pub(crate) fn judge(&self, now: SystemTime, generation: u64) -> Verdict {
        if let Some((end, reason)) = self.end() {
            // The last second belongs to the validity (RFC 5280 §4.1.2.5), but a second more or less is
            // not worth the risk.
            if now >= end {
                return Verdict::Close(reason);
            }
            if now + self.margin(end) >= end {
                return Verdict::Retire(reason);
            }
        }
        if self.generation != generation && self.own_not_after.is_some() {
            return Verdict::Retire(EndReason::OwnCertificateReplaced);
        }
        Verdict::Keep
    }

    /// Whether the verdict changes before the warden looks by itself.
    pub(crate) fn ends_soon(&self, now: SystemTime) -> bool {
        self.next_change(now)
            .is_some_and(|next| next < LONGEST_SLEEP)
    }

    /// How long until the verdict changes by time alone.
    pub(crate) fn next_change(&self, now: SystemTime) -> Option<Duration> {
        let (end, _) = self.end()?;
        let retire = end - self.margin(end);
        let next = if now < retire { retire } else { end };
        Some(next.duration_since(now).unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn terms(own: Option<u64>, peer: Option<u64>) -> Terms {
        Terms {
            direction: Direction::Outbound,
            opened: at(0),
            generation: 1,
            own_not_after: own.map(at),
            peer_not_after: peer.map(at),
        }
    }

    #[test]
    fn a_connection_ends_with_the_certificate_that_ends_first() {
        use EndReason::{
            OwnCertificateEnds as Own, OwnCertificateReplaced, PeerCertificateEnds as Peer,
        };
        use Verdict::{Close, Keep, Retire};
        let table = [
            ("fresh", terms(Some(3600), Some(3600)), 10, 1, Keep),
            (
                "just before the margin",
                terms(Some(3600), Some(7200)),
                3539,
                1,
                Keep,
            ),
            (
                "own, in the margin",
                terms(Some(3600), Some(7200)),
                3540,
                1,
                Retire(Own),
            ),
            (
                "own, at its end",
                terms(Some(3600), Some(7200)),
                3600,
                1,
                Close(Own),
            ),
            (
                "peer's, in the margin",
                terms(Some(7200), Some(3600)),
                3540,
                1,
                Retire(Peer),
            ),
            (
                "peer's, at its end",
                terms(Some(7200), Some(3600)),
                3600,
                1,
                Close(Peer),
            ),
            (
                "a short life has a short margin",
                terms(Some(100), Some(7200)),
                89,
                1,
                Keep,
            ),
            (
                "a tenth of it",
                terms(Some(100), Some(7200)),
                90,
                1,
                Retire(Own),
            ),
            (
                "rotated",
                terms(Some(3600), Some(3600)),
                10,
                2,
                Retire(OwnCertificateReplaced),
            ),
            (
                "rotated, but ended anyway",
                terms(Some(3600), None),
                3601,
                2,
                Close(Own),
            ),
            (
                "joining has no own certificate",
                terms(None, Some(3600)),
                10,
                2,
                Keep,
            ),
            (
                "joining ends with the peer's",
                terms(None, Some(3600)),
                3600,
                1,
                Close(Peer),
            ),
            ("nothing known", terms(None, None), 1_000_000, 1, Keep),
        ];
        for (name, terms, now, generation, expected) in table {
            assert_eq!(terms.judge(at(now), generation), expected, "{name}");
        }
    }

    #[test]
    fn the_next_change_is_the_margin_and_then_the_end() {
        let terms = terms(Some(3600), Some(7200));
        assert_eq!(terms.next_change(at(0)), Some(Duration::from_secs(3540)));
        assert_eq!(terms.next_change(at(3540)), Some(Duration::from_secs(60)));
        assert_eq!(terms.next_change(at(4000)), Some(Duration::ZERO));
    }
}
