//! What can go wrong, each as one sentence with a next step.

use std::io;

use weft_netsim::SpecError;

/// Why a link or a mesh could not be built.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Namespaces and devices need privileges.
    #[error("network namespaces and TUN devices need root; run it again with sudo")]
    NeedsRoot,
    /// Root of a container, without what namespaces take.
    #[error(
        "this root has no CAP_SYS_ADMIN or CAP_NET_ADMIN, as in a container; start the container privileged"
    )]
    NeedsCapabilities,
    /// The kernel's TUN device is not there.
    #[error("there is no /dev/net/tun; load the kernel module with `modprobe tun`")]
    NoTun,
    /// iproute2 is not installed.
    #[error("the command `ip` is missing; install the package iproute2")]
    NoIproute,
    /// `ip` refused.
    #[error(
        "`ip {command}` failed: {message}; nothing was left half done that a next start does not remove"
    )]
    Ip {
        /// Its arguments.
        command: String,
        /// What it wrote.
        message: String,
    },
    /// No namespace of that name.
    #[error("there is no network namespace '{0}'; `ip netns list` shows those that are there")]
    NoNamespace(String),
    /// A name that cannot be a namespace's.
    #[error(
        "'{0}' cannot name a namespace; use 1 to 64 letters, digits, '-', '_' and '.', the first a letter or digit"
    )]
    BadName(String),
    /// The device could not be made.
    #[error(
        "cannot make the device {device} in namespace '{namespace}': {source}; is its name taken, or the kernel without TUN?"
    )]
    Device {
        /// Its name.
        device: String,
        /// Where.
        namespace: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A kernel call failed that always works on a healthy machine.
    #[error("cannot {what}: {source}; the machine seems to be out of resources")]
    System {
        /// What was tried.
        what: &'static str,
        /// The kernel's answer.
        source: io::Error,
    },
    /// An impossible figure.
    #[error("{0}; mend the link's figures")]
    Spec(#[from] SpecError),
    /// A link to a node that is not there, a name twice, a mesh in pieces.
    #[error("{0}")]
    Topology(String),
}

impl Error {
    /// For `map_err` on calls into the kernel.
    pub(crate) fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System {
            what,
            source: source.into(),
        }
    }
}
