//! A NAT between the two ends of a link, that forgets.
//!
//! What a NAT does to a mesh is not the translation but its end: the mapping is forgotten (a reboot, an idle
//! timeout, a new address from the provider) and the next packet of the same flow arrives from another port.
//! A QUIC connection should survive that by path validation; a TCP connection does not.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use crate::spec::SpecError;

/// When a NAT forgets its mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rebinding {
    /// At each multiple of this time since the start of the link.
    Every(Duration),
    /// At these times since the start of the link, in order.
    At(Vec<Duration>),
}

impl Rebinding {
    /// Refuses impossible figures.
    ///
    /// # Errors
    /// [`SpecError::Zero`] for a period of nothing, [`SpecError::Rebindings`] for times out of order.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            Self::Every(Duration::ZERO) => Err(SpecError::Zero("the time between rebindings")),
            Self::Every(_) => Ok(()),
            Self::At(times) => match times.windows(2).position(|pair| pair[1] <= pair[0]) {
                Some(index) => Err(SpecError::Rebindings(index + 1)),
                None => Ok(()),
            },
        }
    }

    /// How often the NAT has forgotten by `now`.
    fn count(&self, now: Duration) -> u128 {
        match self {
            Self::Every(period) => now.as_nanos() / period.as_nanos().max(1),
            Self::At(times) => times.partition_point(|at| *at <= now) as u128,
        }
    }
}

/// One end of a flow that crosses the NAT: ports of different protocols are different ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The IP protocol number: 17 for UDP, 6 for TCP.
    pub protocol: u8,
    /// Address and port.
    pub address: SocketAddr,
}

/// More flows than this at a time make the NAT forget the oldest, as real ones do.
const MAX_MAPPINGS: usize = 4096;
/// Outside ports, from the first below Linux' own ephemeral range upwards, so that they are told apart.
const FIRST_PORT: u16 = 20_000;
const PORTS: u16 = 10_000;

/// A NAT: gives each inside endpoint an outside port, and forgets all of them when it rebinds.
///
/// Only the port is translated, the address stays: to a peer that knows a connection by its four-tuple this
/// is as much of a change as another address, and routes need no care. A packet from outside to a port
/// without a mapping is for nobody.
#[derive(Debug, Clone)]
pub struct Nat {
    rebinding: Rebinding,
    forgotten: u128,
    out: BTreeMap<Endpoint, SocketAddr>,
    back: BTreeMap<Endpoint, SocketAddr>,
    /// Inside endpoints, the oldest first.
    age: VecDeque<Endpoint>,
    next: u16,
}

impl Nat {
    /// A NAT without mappings.
    ///
    /// # Errors
    /// As [`Rebinding::check`].
    pub fn new(rebinding: Rebinding) -> Result<Self, SpecError> {
        rebinding.check()?;
        Ok(Self {
            rebinding,
            forgotten: 0,
            out: BTreeMap::new(),
            back: BTreeMap::new(),
            age: VecDeque::new(),
            next: 0,
        })
    }

    /// The source that the outside sees in a packet of `inside`, at `now` since the start of the link.
    pub fn outward(&mut self, now: Duration, inside: Endpoint) -> SocketAddr {
        self.forget(now);
        if let Some(&outside) = self.out.get(&inside) {
            return outside;
        }
        if self.age.len() == MAX_MAPPINGS
            && let Some(oldest) = self.age.pop_front()
            && let Some(address) = self.out.remove(&oldest)
        {
            self.back.remove(&Endpoint { address, ..oldest });
        }
        let outside = self.free(inside);
        self.out.insert(inside, outside.address);
        self.back.insert(outside, inside.address);
        self.age.push_back(inside);
        outside.address
    }

    /// For whom inside a packet to `outside` is, or `None` if the NAT knows nobody (any more).
    pub fn inward(&mut self, now: Duration, outside: Endpoint) -> Option<SocketAddr> {
        self.forget(now);
        self.back.get(&outside).copied()
    }

    /// The next port that no mapping has. There is one: there are more ports than mappings.
    fn free(&mut self, inside: Endpoint) -> Endpoint {
        loop {
            let mut outside = inside;
            outside.address.set_port(FIRST_PORT + self.next);
            self.next = (self.next + 1) % PORTS;
            if !self.back.contains_key(&outside) {
                return outside;
            }
        }
    }

    fn forget(&mut self, now: Duration) {
        let count = self.rebinding.count(now);
        if count != self.forgotten {
            self.forgotten = count;
            self.out.clear();
            self.back.clear();
            self.age.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn udp(port: u16) -> Endpoint {
        Endpoint {
            protocol: 17,
            address: SocketAddr::from(([10, 0, 0, 1], port)),
        }
    }

    fn at(address: SocketAddr) -> Endpoint {
        Endpoint {
            protocol: 17,
            address,
        }
    }

    #[test]
    fn a_flow_keeps_its_port_until_the_nat_forgets_it() {
        let mut nat = Nat::new(Rebinding::At(vec![SECOND])).unwrap();
        let before = nat.outward(Duration::ZERO, udp(4000));
        assert_ne!(before, udp(4000).address, "the port is translated");
        assert_eq!(nat.outward(SECOND / 2, udp(4000)), before);
        assert_eq!(
            nat.inward(SECOND / 2, at(before)),
            Some(udp(4000).address),
            "answers come back"
        );

        assert_eq!(nat.inward(SECOND, at(before)), None, "forgotten");
        let after = nat.outward(SECOND, udp(4000));
        assert_ne!(after, before, "the peer sees another port");
        assert_eq!(nat.inward(2 * SECOND, at(after)), Some(udp(4000).address));
    }

    #[test]
    fn flows_and_protocols_are_told_apart() {
        let mut nat = Nat::new(Rebinding::Every(SECOND)).unwrap();
        let one = nat.outward(Duration::ZERO, udp(4000));
        let other = nat.outward(Duration::ZERO, udp(4001));
        assert_ne!(one, other);
        let tcp = Endpoint {
            protocol: 6,
            address: one,
        };
        assert_eq!(nat.inward(Duration::ZERO, tcp), None);
    }

    #[test]
    fn the_table_is_bounded_and_the_oldest_flow_goes() {
        let mut nat = Nat::new(Rebinding::Every(SECOND)).unwrap();
        let first = nat.outward(Duration::ZERO, udp(1));
        let second = nat.outward(Duration::ZERO, udp(2));
        for port in 0..u16::try_from(MAX_MAPPINGS).unwrap() - 1 {
            nat.outward(Duration::ZERO, udp(10_000 + port));
        }
        assert_eq!(nat.inward(Duration::ZERO, at(first)), None);
        assert_eq!(nat.inward(Duration::ZERO, at(second)), Some(udp(2).address));
        assert_eq!(nat.out.len(), MAX_MAPPINGS);
        assert_eq!(nat.back.len(), MAX_MAPPINGS);
    }

    #[test]
    fn impossible_times_are_refused() {
        assert_eq!(
            Rebinding::Every(Duration::ZERO).check(),
            Err(SpecError::Zero("the time between rebindings"))
        );
        let backwards = Rebinding::At(vec![2 * SECOND, SECOND]);
        assert_eq!(backwards.check(), Err(SpecError::Rebindings(1)));
    }
}
