//! Two namespaces, a link, and traffic over it.

use weft_netsim::LinkSpec;
use weft_netsim_tun::{LinkPlan, LinkReport, Mesh, MeshLink, MeshNode, MeshPlan, Namespace, Way};

use super::traffic::{self, Arrival, Stream};
use crate::failure::Failure;
use crate::lease::Lease;
use crate::mesh_file::default_mtu;

/// Where checks are played.
#[derive(Debug)]
pub(crate) struct Stage {
    prefix: String,
    seed: u64,
}

/// The two nodes.
const NAMES: [&str; 2] = ["a", "b"];

impl Stage {
    /// A stage whose namespaces belong to `lease`.
    pub(crate) fn new(lease: &Lease, seed: u64) -> Self {
        Self {
            prefix: lease.prefix(),
            seed,
        }
    }

    /// The seed of the first run of each check.
    pub(crate) fn seed(&self) -> u64 {
        self.seed
    }

    /// Builds a link as `spec` says, sends `stream` from a to b, and takes everything down.
    ///
    /// # Errors
    /// [`Failure::Link`] or [`Failure::Io`] if the machine does not give what it takes.
    pub(crate) fn play(
        &self,
        spec: &LinkSpec,
        seed: u64,
        stream: &Stream,
    ) -> Result<(Vec<Arrival>, LinkReport), Failure> {
        let nodes: Vec<_> = NAMES
            .iter()
            .zip(1..)
            .map(|(name, last)| MeshNode {
                name: (*name).to_owned(),
                namespace: format!("{}-{name}", self.prefix),
                address: [10, 77, 0, last].into(),
            })
            .collect();
        let plan = MeshPlan {
            links: vec![MeshLink {
                a: NAMES[0].to_owned(),
                b: NAMES[1].to_owned(),
                plan: LinkPlan {
                    forward: Way::steady(spec.clone()),
                    backward: Way::steady(spec.clone()),
                    seed,
                    nat: None,
                    mtu: default_mtu(),
                },
            }],
            nodes,
        };
        let mesh = Mesh::build(&plan)?;
        let ends = [0, 1].map(|n: usize| {
            let node = &plan.nodes[n];
            Namespace::existing(&node.namespace).map(|namespace| (namespace, node.address))
        });
        let [a, b] = ends;
        let arrivals = traffic::pass(stream, &a?, &b?)?;
        let mut reports = mesh.stop()?;
        Ok((arrivals, reports.remove(0)))
    }
}
