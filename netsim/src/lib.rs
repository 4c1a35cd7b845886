//! Bad networks on demand: a model of a link, pure and seeded.
//!
//! [`Link`] is one direction of a link. It is given a packet's size and the time, and says what becomes of
//! the packet: delivered when, once or twice, damaged or not, or lost, and to what. It has no clock and no
//! socket, so the same model can drive a simulation in virtual time and a link between network namespaces;
//! with the same seed and the same packets it gives the same answers.
//!
//! A link may change on a schedule ([`Link::with_schedule`]), and may have a [`Nat`] at one end that forgets its
//! mappings: what a connection sees when its path moves under it.
//!
//! [`Profile`]s name the links that weft's promises are measured on.

mod link;
mod nat;
mod profile;
mod spec;

pub use link::{Arrival, Delivery, Fate, Link, LossCause};
pub use nat::{Endpoint, Nat, Rebinding};
pub use profile::{Profile, UnknownProfile};
pub use spec::{Change, Jitter, LinkSpec, Loss, Mtu, Outage, Queue, Rate, SpecError};
