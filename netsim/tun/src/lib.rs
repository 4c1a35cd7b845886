//! The link model of [`weft_netsim`] between two network namespaces, in real time.
//!
//! Each end of a link is a TUN device in a namespace. One thread reads the packets that the kernel routes into
//! either device, asks the model what becomes of each, and writes those that arrive into the other device at
//! their time:
//!
//! ```text
//!   namespace a                        this process                        namespace b
//!   socket → route → weft0 ──read──▶ Link (a to b) ─▶ queue by time ──write──▶ weft0 → socket
//!   socket ◀ route ◀ weft0 ◀─write── queue by time ◀─ Link (b to a) ◀──read── weft0 ← route ← socket
//! ```
//!
//! Release times are absolute deadlines of the monotonic clock. Where the machine takes the CPU away, no
//! program in user space can keep them: so each link counts how late it released every packet
//! ([`LinkReport`]), and [`BareTimer`] measures, in the same minutes, how late a thread wakes that does nothing
//! else. A measurement over a link that [was late](LinkReport::late) is to be repeated.
//!
//! This driver stands outside the `Env` of the mesh, like the kernel that it stands in for.

mod bare;
mod clock;
mod device;
mod direction;
mod driver;
mod error;
mod lateness;
mod mesh;
mod namespace;
mod nat_box;
mod nat_packet;
mod packet;
mod plan;
mod preflight;
mod priority;
mod report;
mod routes;

pub use bare::BareTimer;
pub use clock::Clock;
pub use driver::{End, RunningLink};
pub use error::Error;
pub use lateness::{Lateness, LatenessReport};
pub use mesh::{Mesh, MeshLink, MeshNode, MeshPlan};
pub use namespace::Namespace;
pub use plan::{LinkPlan, NatPlan, Side, Way, seed_of};
pub use preflight::preflight;
pub use priority::{LINK_LEVEL, Priority, raise_priority};
pub use report::{DirectionReport, LinkReport, Losses};
