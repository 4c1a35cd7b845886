//! The mesh file: nodes, and the links between them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use serde::Deserialize;
use weft_netsim::{Change, LinkSpec, Profile, Rebinding};
use weft_netsim_tun::{LinkPlan, MeshLink, MeshNode, MeshPlan, NatPlan, Side, Way};

use crate::failure::Failure;
use crate::overrides::Overrides;
use crate::units::Span;

/// Larger files are not meshes but a mistake in the path.
const MAX_BYTES: u64 = 1024 * 1024;
/// More namespaces than that are not for one machine.
const MAX_NODES: usize = 64;

/// The file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MeshFile {
    nodes: Vec<NodeEntry>,
    #[serde(default)]
    links: Vec<LinkEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeEntry {
    name: NodeName,
    address: Option<Ipv4Addr>,
}

/// A name that fits into a namespace's, a device's (`to-NAME`) and, in capitals, a variable's.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct NodeName(String);

impl TryFrom<String> for NodeName {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = (1..=12).contains(&name.len())
            && name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if fits {
            Ok(Self(name))
        } else {
            let name: String = name.chars().take(40).collect();
            Err(format!(
                "'{name}' cannot name a node; use 1 to 12 small letters, digits and '-', the first a letter"
            ))
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LinkEntry {
    between: (String, String),
    profile: ProfileName,
    #[serde(default = "default_seed")]
    seed: u64,
    #[serde(default = "default_mtu")]
    mtu: u32,
    #[serde(default)]
    set: Overrides,
    #[serde(default)]
    forward: Overrides,
    #[serde(default)]
    backward: Overrides,
    #[serde(default)]
    changes: Vec<ChangeEntry>,
    nat: Option<NatEntry>,
}

/// The seed of a link that names none.
pub(crate) fn default_seed() -> u64 {
    1
}

/// The devices' MTU of a link that names none: Ethernet's.
pub(crate) fn default_mtu() -> u32 {
    1500
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChangeEntry {
    at: Span,
    #[serde(default)]
    set: Overrides,
    #[serde(default)]
    forward: Overrides,
    #[serde(default)]
    backward: Overrides,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NatEntry {
    inside: String,
    every: Option<Span>,
    at: Option<Vec<Span>>,
}

#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct ProfileName(Profile);

impl TryFrom<String> for ProfileName {
    type Error = weft_netsim::UnknownProfile;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        name.parse().map(Self)
    }
}

/// Reads a mesh file and gives its nodes the namespaces `PREFIX-NAME`.
///
/// # Errors
/// [`Failure::Usage`] with the place in the file.
pub(crate) fn read(path: &Path, prefix: &str) -> Result<MeshPlan, Failure> {
    let next = "name a readable mesh file";
    let what = || format!("read {}", path.display());
    let meta = std::fs::metadata(path).map_err(Failure::io(what(), next))?;
    if meta.len() > MAX_BYTES {
        return Err(Failure::Usage(format!(
            "{} is over 1 MiB; {next}",
            path.display()
        )));
    }
    let text = std::fs::read_to_string(path).map_err(Failure::io(what(), next))?;
    parse(&text, prefix).map_err(|error| Failure::Usage(format!("{}:{error}", path.display())))
}

/// The mesh of a file's text. Errors begin with line and column where they have one.
fn parse(text: &str, prefix: &str) -> Result<MeshPlan, String> {
    let file: MeshFile = serde_saphyr::from_str(text).map_err(|error| {
        let said = error.without_snippet().to_string();
        let said = said.lines().next().unwrap_or_default();
        // The parser repeats the place at the end of some of its sentences.
        let said = said.split(" at line ").next().unwrap_or_default();
        match error.location() {
            Some(at) => format!("{}:{}: {said}", at.line(), at.column()),
            None => format!(" {said}"),
        }
    })?;
    if file.nodes.len() > MAX_NODES {
        return Err(format!(
            " {} nodes are too many for one machine; name at most {MAX_NODES}",
            file.nodes.len()
        ));
    }
    let nodes = file
        .nodes
        .into_iter()
        .zip(1..)
        .map(|(node, number)| MeshNode {
            namespace: format!("{prefix}-{}", node.name.0),
            name: node.name.0,
            address: node.address.unwrap_or(Ipv4Addr::new(10, 77, 0, number)),
        })
        .collect();
    let links = file
        .links
        .into_iter()
        .enumerate()
        .map(|(index, link)| {
            link.plan()
                .map_err(|error| format!(" links[{index}]: {error}"))
        })
        .collect::<Result<_, _>>()?;
    let plan = MeshPlan { nodes, links };
    plan.check().map_err(|error| format!(" {error}"))?;
    Ok(plan)
}

impl LinkEntry {
    fn plan(self) -> Result<MeshLink, String> {
        let both = self.set.apply(&self.profile.0.spec())?;
        let mut forward = Way::steady(self.forward.apply(&both)?);
        let mut backward = Way::steady(self.backward.apply(&both)?);
        for (index, change) in self.changes.iter().enumerate() {
            let add = |way: &mut Way, own: &Overrides| {
                let before: &LinkSpec = way.changes.last().map_or(&way.spec, |last| &last.spec);
                let spec = change.set.apply(before).and_then(|spec| own.apply(&spec))?;
                way.changes.push(Change {
                    at: change.at.0,
                    spec,
                });
                Ok(())
            };
            add(&mut forward, &change.forward)
                .and_then(|()| add(&mut backward, &change.backward))
                .map_err(|error: String| format!("changes[{index}]: {error}"))?;
        }
        let nat = match self.nat {
            None => None,
            Some(nat) => Some(nat.plan(&self.between)?),
        };
        check_mtu(self.mtu)?;
        let plan = LinkPlan {
            forward,
            backward,
            seed: self.seed,
            nat,
            mtu: self.mtu,
        };
        plan.check().map_err(|error| error.to_string())?;
        Ok(MeshLink {
            a: self.between.0,
            b: self.between.1,
            plan,
        })
    }
}

/// Linux refuses IPv4 on a device below 68 bytes, and a TUN device above 65,535.
pub(crate) fn check_mtu(mtu: u32) -> Result<(), String> {
    if (68..=65_535).contains(&mtu) {
        Ok(())
    } else {
        Err(format!(
            "a device cannot have an MTU of {mtu} bytes; give 68 to 65535"
        ))
    }
}

impl NatEntry {
    fn plan(self, between: &(String, String)) -> Result<NatPlan, String> {
        let inside = match &self.inside {
            inside if *inside == between.0 => Side::A,
            inside if *inside == between.1 => Side::B,
            inside => {
                return Err(format!(
                    "the NAT has '{inside}' inside, which is no end of this link; name {} or {}",
                    between.0, between.1
                ));
            }
        };
        let rebinding = match (self.every, self.at) {
            (Some(Span(period)), None) => Rebinding::Every(period),
            (None, Some(times)) => Rebinding::At(times.into_iter().map(|at| at.0).collect()),
            (None, None) => Rebinding::At(Vec::new()),
            (Some(_), Some(_)) => {
                return Err("a NAT forgets either `every` so often or `at` given times".to_owned());
            }
        };
        Ok(NatPlan { inside, rebinding })
    }
}

/// The variables that a command in the mesh finds: names, addresses, and the words that run a command there.
pub(crate) fn variables(plan: &MeshPlan) -> BTreeMap<String, String> {
    let names: Vec<_> = plan.nodes.iter().map(|node| node.name.as_str()).collect();
    let mut variables = BTreeMap::from([("WEFT_NODES".to_owned(), names.join(" "))]);
    for node in &plan.nodes {
        let name = node.name.to_uppercase().replace('-', "_");
        variables.insert(format!("WEFT_NS_{name}"), node.namespace.clone());
        variables.insert(format!("WEFT_IP_{name}"), node.address.to_string());
        variables.insert(
            format!("WEFT_IN_{name}"),
            format!("ip netns exec {}", node.namespace),
        );
    }
    variables
}

#[cfg(test)]
#[path = "mesh_file_tests.rs"]
mod tests;
