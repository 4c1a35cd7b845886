//! A network namespace of the run's own: nobody else's traffic, an MTU that can be set, and a congestion
//! control that is known.

use std::path::Path;
use std::process::Stdio;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use crate::error::{Error, Result};
use crate::pairs::Congestion;
use crate::process::{Place, find, run};

/// Says to this program that it runs in a namespace of its own.
const INSIDE: &str = "WEFT_BENCHES_INSIDE";

/// Where traffic flows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Arena {
    /// Whether it is a namespace of this run alone.
    pub(crate) own: bool,
    /// Congestion control of all TCP, if it was set.
    pub(crate) tcp: Option<Congestion>,
}

/// Runs this very command again in a namespace of its own, where that can be had. `None` says that this
/// process is to do the work itself.
pub(crate) async fn enter() -> Result<Option<std::process::ExitStatus>> {
    let inside = std::env::var_os(INSIDE).is_some();
    let root = rustix::process::geteuid().is_root();
    let (Some(unshare), Some(_)) = (find("unshare"), find("ip")) else {
        return Ok(None);
    };
    if inside || !root {
        return Ok(None);
    }
    let exe = std::env::current_exe().map_err(Error::io("find this program's own file"))?;
    // The namespace goes with its last process, whatever ends it.
    let status = Command::new(unshare)
        .arg("--net")
        .arg("--kill-child")
        .arg(exe)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .stdin(Stdio::null())
        .status()
        .await
        .map_err(Error::io("make a network namespace"))?;
    Ok(Some(status))
}

impl Arena {
    /// What this process runs in, made ready.
    pub(crate) async fn prepare(congestion: Congestion) -> Result<Self> {
        if std::env::var_os(INSIDE).is_none() {
            return Ok(Self::default());
        }
        ip(&["link", "set", "lo", "up"]).await?;
        for destination in ["127.0.0.0/8", "127.0.0.1"] {
            // Only a route can give a namespace a congestion control that is not on the kernel's list for all.
            let route = format!(
                "route replace local {destination} dev lo proto kernel scope host src 127.0.0.1 table local congctl {}",
                congestion.name()
            );
            ip(&route.split(' ').collect::<Vec<_>>()).await?;
        }
        Ok(Self {
            own: true,
            tcp: Some(congestion),
        })
    }

    /// Sets the MTU of the loopback link; leaves that of the machine alone.
    pub(crate) async fn set_mtu(self, mtu: u32) -> Result<()> {
        if self.own {
            ip(&["link", "set", "lo", "mtu", &mtu.to_string()]).await?;
        }
        Ok(())
    }
}

async fn ip(args: &[&str]) -> Result<()> {
    let ip = find("ip").ok_or(Error::Missing {
        what: "ip",
        how: "apt-get install iproute2".into(),
    })?;
    run(&Place::here(), Path::new(&ip), args).await.map(drop)
}
