//! What a machine must have, asked before anything is built.

use std::path::Path;
use std::process::{Command, Stdio};

use rustix::thread::{CapabilitySet, capabilities};

use crate::error::Error;

/// Whether this process can build links here.
///
/// # Errors
/// The first thing that is missing, with what to do about it.
pub fn preflight() -> Result<(), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NeedsRoot);
    }
    let needed = CapabilitySet::SYS_ADMIN | CapabilitySet::NET_ADMIN;
    if !capabilities(None).is_ok_and(|own| own.effective.contains(needed)) {
        return Err(Error::NeedsCapabilities);
    }
    if !Path::new("/dev/net/tun").exists() {
        return Err(Error::NoTun);
    }
    let ip = Command::new("ip")
        .arg("-V")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    match ip {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Error::NoIproute),
    }
}
