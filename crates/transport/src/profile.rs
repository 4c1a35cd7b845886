//! Settings for one kind of network, and for whom they are pinned.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use weft_certs::{ExpectedPeer, SpiffeId};

use crate::Liveness;

/// How a sender answers loss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Congestion {
    /// CUBIC that slows down for congestion and not for random loss: the default, for every path.
    #[default]
    Discerning,
    /// CUBIC (RFC 9438), for which every loss is congestion.
    Cubic,
    /// BBR, which quinn calls experimental.
    Bbr,
}

impl fmt::Display for Congestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Discerning => "discerning",
            Self::Cubic => "cubic",
            Self::Bbr => "bbr",
        })
    }
}

/// When small datagrams are sent a second time. Never on a full link, never above 10 Mb/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Copying {
    /// Where loss was seen.
    #[default]
    Auto,
    /// From the first packet on.
    Always,
    /// Nowhere.
    Never,
}

/// Transport settings for one kind of network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name, for people.
    pub name: &'static str,
    /// The round-trip time assumed before the first sample, if the address was never met. QUIC's default of 333 ms
    /// makes the first loss cost a second.
    pub initial_rtt: Duration,
    /// Whether the round trip that was last seen to the same address takes the place of `initial_rtt`.
    pub remembers_rtt: bool,
    /// How many bytes a peer may send on one stream ahead of its reader.
    pub stream_window: u32,
    /// How many bytes a peer may send on one connection ahead of all readers.
    pub connection_window: u32,
    /// How many bytes may be under way and unacknowledged on one connection, in memory at the sender.
    pub send_window: u64,
    /// How loss is answered.
    pub congestion: Congestion,
    /// Whether small datagrams are sent twice.
    pub copying: Copying,
    /// How soon a peer is known to be gone, in place of what the target says ([`Liveness::SIDECAR`]). The idle
    /// timeout in force is the smaller of both ends'.
    pub liveness: Option<Liveness>,
    /// The largest UDP payload that path MTU discovery tries. Jumbo frames double bulk speed; discovery
    /// finds by itself what the path carries.
    pub mtu_upper_bound: u16,
    /// The same for peers on this machine. 65,507 is possible there and measured no faster than jumbo
    /// frames (23.5 against 23.2 Gb/s), but it makes each sending connection keep 640 KiB of buffer.
    pub loopback_mtu_upper_bound: u16,
}

/// An Ethernet path without jumbo frames: 1,500 less the headers of IPv6 and UDP.
const ETHERNET: u16 = 1_452;
/// What 1 Gb/s has under way in 100 ms.
const LONG_FAT: u32 = 12_500_000;

impl Profile {
    /// Whatever the path shows: loss is judged packet by packet, copies follow loss that was seen.
    #[must_use]
    pub fn auto() -> Self {
        Self {
            name: "auto",
            initial_rtt: Duration::from_millis(5),
            remembers_rtt: true,
            stream_window: 1 << 20,
            connection_window: 16 << 20,
            send_window: 8 << 20,
            congestion: Congestion::Discerning,
            copying: Copying::Auto,
            liveness: None,
            mtu_upper_bound: 8_952,
            loopback_mtu_upper_bound: 8_952,
        }
    }

    /// A data centre: round trips below 5 ms, hardly any loss, 1 Gb/s or more. Every loss is congestion, and nothing
    /// is sent twice.
    #[must_use]
    pub fn dc() -> Self {
        Self {
            name: "dc",
            remembers_rtt: false,
            congestion: Congestion::Cubic,
            copying: Copying::Never,
            ..Self::auto()
        }
    }

    /// Between regions: long round trips, hardly any loss. Windows of 1 Gb/s × 100 ms, no jumbo frames, more patience
    /// with silence.
    #[must_use]
    pub fn wan() -> Self {
        Self {
            name: "wan",
            initial_rtt: Duration::from_millis(100),
            stream_window: LONG_FAT,
            connection_window: 2 * LONG_FAT,
            send_window: 2 * LONG_FAT as u64,
            copying: Copying::Never,
            liveness: Some(Liveness {
                idle_timeout: Duration::from_secs(5),
                ..Liveness::SIDECAR
            }),
            mtu_upper_bound: ETHERNET,
            ..Self::auto()
        }
    }

    /// A path that loses: copies of small messages from the first packet on, and signs of life so often that several
    /// may be lost.
    #[must_use]
    pub fn lossy() -> Self {
        Self {
            name: "lossy",
            copying: Copying::Always,
            liveness: Some(Liveness {
                idle_timeout: Duration::from_secs(10),
                keep_alive: Duration::from_millis(500),
            }),
            ..Self::wan()
        }
    }

    /// The names that [`Profile::named`] knows.
    pub const NAMES: [&str; 4] = ["auto", "dc", "wan", "lossy"];

    /// The profile of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "auto" => Some(Self::auto()),
            "dc" => Some(Self::dc()),
            "wan" => Some(Self::wan()),
            "lossy" => Some(Self::lossy()),
            _ => None,
        }
    }

    /// How soon a peer is known to be gone, for a target that asks for `asked`.
    pub(crate) fn liveness(&self, asked: Liveness) -> Liveness {
        match self.liveness {
            Some(own) if asked == Liveness::SIDECAR => own,
            _ => asked,
        }
    }
}

/// Profiles by peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pins(BTreeMap<SpiffeId, Profile>);

impl Pins {
    /// Gives connections to and from `peer` this profile. One that the peer dials has it from the end of its
    /// handshake on, since who dials is not known before: congestion control, copies and the windows of the
    /// connection then follow it; the idle timeout and the window of a stream were agreed on before.
    pub fn pin(&mut self, peer: SpiffeId, profile: Profile) {
        self.0.insert(peer, profile);
    }

    pub(crate) fn of(&self, peer: &SpiffeId) -> Option<&Profile> {
        self.0.get(peer)
    }

    /// That of the first of those who are expected that has one.
    pub(crate) fn of_expected(&self, expected: &ExpectedPeer) -> Option<&Profile> {
        self.0
            .iter()
            .find_map(|(peer, profile)| expected.contains(peer).then_some(profile))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_that_of_its_profile() {
        for name in Profile::NAMES {
            assert_eq!(Profile::named(name).map(|p| p.name), Some(name));
        }
        assert_eq!(Profile::named("lan"), None);
    }

    #[test]
    fn a_pin_changes_the_patience_with_a_sidecar_and_not_that_with_a_control_node() {
        let lossy = Profile::lossy();
        assert_eq!(
            lossy.liveness(Liveness::SIDECAR).idle_timeout,
            Duration::from_secs(10)
        );
        assert_eq!(lossy.liveness(Liveness::CONTROL), Liveness::CONTROL);
        assert_eq!(
            Profile::auto().liveness(Liveness::SIDECAR),
            Liveness::SIDECAR
        );
    }
}
