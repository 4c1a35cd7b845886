//! Several namespaces and the links between them.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::driver::{End, RunningLink};
use crate::error::Error;
use crate::namespace::Namespace;
use crate::plan::LinkPlan;
use crate::report::LinkReport;
use crate::routes::first_links;

/// A node: a namespace with one address, the same over all of its links.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MeshNode {
    /// Its name within the mesh, at most 12 bytes.
    pub name: String,
    /// The namespace to make for it.
    pub namespace: String,
    /// Its address.
    pub address: Ipv4Addr,
}

/// A link between two nodes, by their names.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshLink {
    /// One end.
    pub a: String,
    /// The other.
    pub b: String,
    /// What it is like.
    pub plan: LinkPlan,
}

/// A mesh as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct MeshPlan {
    /// Its nodes.
    pub nodes: Vec<MeshNode>,
    /// Its links, at most one between two nodes.
    pub links: Vec<MeshLink>,
}

impl MeshPlan {
    /// The links by the places of their nodes.
    ///
    /// # Errors
    /// [`Error::Topology`]: a name or address twice, a node that is not there, a link to itself, two links
    /// between the same nodes.
    pub fn check(&self) -> Result<Vec<(usize, usize)>, Error> {
        let mut names = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        for node in &self.nodes {
            if !names.insert(&node.name) {
                return topology(format!(
                    "two nodes have the name '{}'; rename one",
                    node.name
                ));
            }
            if !addresses.insert(node.address) {
                return topology(format!(
                    "two nodes have the address {}; give '{}' another",
                    node.address, node.name
                ));
            }
        }
        let mut pairs = BTreeSet::new();
        self.links
            .iter()
            .map(|link| {
                let (a, b) = (self.place(&link.a)?, self.place(&link.b)?);
                if a == b {
                    return topology(format!(
                        "a link goes from '{}' to itself; name two nodes",
                        link.a
                    ));
                }
                if !pairs.insert((a.min(b), a.max(b))) {
                    return topology(format!(
                        "two links go between '{}' and '{}'; leave one out",
                        link.a, link.b
                    ));
                }
                Ok((a, b))
            })
            .collect()
    }

    fn place(&self, name: &str) -> Result<usize, Error> {
        match self.nodes.iter().position(|node| node.name == name) {
            Some(place) => Ok(place),
            None => {
                let known: Vec<_> = self.nodes.iter().map(|node| node.name.as_str()).collect();
                topology(format!(
                    "a link names the node '{name}', which is not there; the nodes are {}",
                    known.join(", ")
                ))
            }
        }
    }
}

fn topology<T>(sentence: String) -> Result<T, Error> {
    Err(Error::Topology(sentence))
}

/// A mesh that stands until it is stopped or dropped; then links and namespaces are gone.
#[derive(Debug)]
pub struct Mesh {
    links: Vec<RunningLink>,
    // After the links: a namespace outlives the devices in it.
    namespaces: Vec<Owned>,
}

/// A namespace that ends with its owner.
#[derive(Debug)]
struct Owned(Namespace);

impl Drop for Owned {
    fn drop(&mut self) {
        // One that is gone already is gone.
        let _ = self.0.delete();
    }
}

impl Mesh {
    /// Makes the namespaces, links, addresses and routes.
    ///
    /// # Errors
    /// As [`MeshPlan::check`], [`Namespace::create`] and [`RunningLink::start`]; then nothing is left.
    pub fn build(plan: &MeshPlan) -> Result<Self, Error> {
        let pairs = plan.check()?;
        let mut mesh = Self {
            links: Vec::new(),
            namespaces: Vec::new(),
        };
        for node in &plan.nodes {
            let namespace = Namespace::create(&node.namespace)?;
            mesh.namespaces.push(Owned(namespace.clone()));
            namespace.configure(&format!("addr add {}/32 dev lo\n", node.address))?;
            namespace.set("net/ipv4/ip_forward", "1")?;
        }
        for (link, &(a, b)) in plan.links.iter().zip(&pairs) {
            let end = |here: usize, there: usize| End {
                namespace: mesh.namespaces[here].0.clone(),
                device: device_to(&plan.nodes[there].name),
            };
            let running = RunningLink::start(&link.plan, end(a, b), end(b, a))?;
            mesh.links.push(running);
        }
        mesh.route(plan, &pairs)?;
        Ok(mesh)
    }

    fn route(&self, plan: &MeshPlan, pairs: &[(usize, usize)]) -> Result<(), Error> {
        let first = first_links(plan.nodes.len(), pairs);
        for (here, node) in plan.nodes.iter().enumerate() {
            let mut commands = String::new();
            for (there, destination) in plan.nodes.iter().enumerate() {
                let Some(link) = first[here][there] else {
                    continue;
                };
                let (a, b) = pairs[link];
                let neighbour = if a == here { b } else { a };
                let device = device_to(&plan.nodes[neighbour].name);
                commands += &format!(
                    "route add {}/32 dev {device} src {}\n",
                    destination.address, node.address
                );
            }
            self.namespaces[here].0.configure(&commands)?;
        }
        Ok(())
    }

    /// The links, in the plan's order.
    #[must_use]
    pub fn links(&self) -> &[RunningLink] {
        &self.links
    }

    /// Stops all links, removes the namespaces, and says what each link did, in the plan's order.
    ///
    /// # Errors
    /// As [`RunningLink::stop`]; namespaces are removed all the same.
    pub fn stop(self) -> Result<Vec<LinkReport>, Error> {
        let Self { links, namespaces } = self;
        let reports = links.into_iter().map(RunningLink::stop).collect();
        drop(namespaces);
        reports
    }
}

/// The name of a node's device on its link to `neighbour`.
fn device_to(neighbour: &str) -> String {
    format!("to-{neighbour}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Way;
    use std::time::Duration;
    use weft_netsim::LinkSpec;

    fn plan(nodes: &[(&str, u8)], links: &[(&str, &str)]) -> MeshPlan {
        let way = Way::steady(LinkSpec::ideal(Duration::from_millis(1)));
        MeshPlan {
            nodes: nodes
                .iter()
                .map(|&(name, last)| MeshNode {
                    name: name.into(),
                    namespace: name.into(),
                    address: Ipv4Addr::new(10, 77, 0, last),
                })
                .collect(),
            links: links
                .iter()
                .map(|&(a, b)| MeshLink {
                    a: a.into(),
                    b: b.into(),
                    plan: LinkPlan {
                        forward: way.clone(),
                        backward: way.clone(),
                        seed: 1,
                        nat: None,
                        mtu: 1500,
                    },
                })
                .collect(),
        }
    }

    #[test]
    fn a_mesh_that_cannot_be_is_refused_with_the_names() {
        let good = plan(&[("a", 1), ("b", 2)], &[("b", "a")]);
        assert_eq!(good.check().unwrap(), [(1, 0)]);
        let two: &[(&str, u8)] = &[("a", 1), ("b", 2)];
        for (bad, text) in [
            (plan(&[("a", 1), ("a", 2)], &[]), "the name 'a'"),
            (plan(&[("a", 1), ("b", 1)], &[]), "address 10.77.0.1"),
            (plan(two, &[("a", "c")]), "the node 'c'"),
            (plan(two, &[("a", "a")]), "to itself"),
            (plan(two, &[("a", "b"), ("b", "a")]), "two links"),
        ] {
            let error = bad.check().unwrap_err().to_string();
            assert!(error.contains(text), "'{error}' names '{text}'");
        }
    }
}
