//! The NAT at one end of a running link.

use std::time::Duration;

use weft_netsim::Nat;

use crate::error::Error;
use crate::nat_packet::{PacketEnd, Seen, seen, set_port};
use crate::plan::NatPlan;

/// A NAT and where it stands. Ends are counted as the driver's devices are: 0 for a, 1 for b.
#[derive(Debug)]
pub(crate) struct NatBox {
    nat: Nat,
    inside: usize,
}

impl NatBox {
    pub(crate) fn new(plan: &NatPlan) -> Result<Self, Error> {
        Ok(Self {
            nat: Nat::new(plan.rebinding.clone())?,
            inside: plan.inside as usize,
        })
    }

    /// A packet leaves the end `from`: gives it its outside port if that is the NAT's inside; whether it may
    /// pass.
    pub(crate) fn outward(&mut self, from: usize, now: Duration, packet: &mut [u8]) -> bool {
        if from != self.inside {
            return true;
        }
        match seen(packet, PacketEnd::Source) {
            Seen::Endpoint(source) => {
                let port = self.nat.outward(now, source).port();
                set_port(packet, PacketEnd::Source, port);
                true
            }
            Seen::Portless => true,
            Seen::Unknown => false,
        }
    }

    /// A packet reaches the end `to`: gives it its inside port if that is the NAT's inside; whether it may
    /// pass.
    pub(crate) fn inward(&mut self, to: usize, now: Duration, packet: &mut [u8]) -> bool {
        if to != self.inside {
            return true;
        }
        match seen(packet, PacketEnd::Destination) {
            Seen::Endpoint(destination) => match self.nat.inward(now, destination) {
                Some(address) => {
                    set_port(packet, PacketEnd::Destination, address.port());
                    true
                }
                None => false,
            },
            Seen::Portless => true,
            Seen::Unknown => false,
        }
    }
}
