//! A link as it is asked for.

use weft_netsim::{Change, Link, LinkSpec, Rebinding};

use crate::error::Error;

/// One direction as it is asked for: what it is like, and how that changes.
#[derive(Debug, Clone, PartialEq)]
pub struct Way {
    /// What it is like at the start.
    pub spec: LinkSpec,
    /// How that changes.
    pub changes: Vec<Change>,
}

impl Way {
    /// A direction that stays as it is.
    #[must_use]
    pub fn steady(spec: LinkSpec) -> Self {
        Self {
            spec,
            changes: Vec::new(),
        }
    }
}

/// An end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The first.
    A,
    /// The second.
    B,
}

/// A NAT at one end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NatPlan {
    /// Who is behind it.
    pub inside: Side,
    /// When it forgets.
    pub rebinding: Rebinding,
}

/// A link as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkPlan {
    /// From a to b.
    pub forward: Way,
    /// From b to a.
    pub backward: Way,
    /// Where all chance comes from; each direction draws its own from it.
    pub seed: u64,
    /// A NAT at one end.
    pub nat: Option<NatPlan>,
    /// MTU of the two devices, which both ends know of; the path's own limit is in the directions.
    pub mtu: u32,
}

impl LinkPlan {
    /// Refuses impossible figures before anything is built.
    ///
    /// # Errors
    /// [`Error::Spec`] with the first of them.
    pub fn check(&self) -> Result<(), Error> {
        self.models().map(drop)?;
        if let Some(nat) = &self.nat {
            nat.rebinding.check()?;
        }
        Ok(())
    }

    /// The models of both directions.
    pub(crate) fn models(&self) -> Result<[Link; 2], Error> {
        let model = |way: &Way, from| {
            let seed = seed_of(self.seed, from);
            Link::with_schedule(way.spec.clone(), way.changes.clone(), seed)
        };
        Ok([
            model(&self.forward, Side::A)?,
            model(&self.backward, Side::B)?,
        ])
    }
}

/// The seed of one direction of a link: `Link`s made from it lose the same packets as the running link.
/// The direction is named by the side that it begins at.
#[must_use]
pub fn seed_of(seed: u64, from: Side) -> u64 {
    match from {
        Side::A => seed,
        // Any fixed odd pattern serves: the two directions must differ.
        Side::B => seed ^ 0x9e37_79b9_7f4a_7c15,
    }
}
