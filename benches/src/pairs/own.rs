//! The baseline pairs of this package.

use std::net::SocketAddr;
use std::path::Path;

use super::{Pair, Site, ports};
use crate::error::{Error, Result};
use crate::process::{Place, Process};

/// Starts both sides as roles of this program.
pub(super) async fn start(role: &str, site: &Site, dir: &Path) -> Result<Pair> {
    let b = site.b.addr(ports::free());
    let a = site.a.addr(ports::free());
    let sides = [("b", &site.b, b, site.server), ("a", &site.a, a, b)];
    let mut proxies = Vec::new();
    for (side, place, listen, upstream) in sides {
        let ready = dir.join(format!("{side}.ready"));
        let args = [
            "role".to_owned(),
            role.to_owned(),
            format!("--side={side}"),
            format!("--listen={listen}"),
            format!("--upstream={upstream}"),
            format!("--certs={}", site.certs.dir().display()),
            format!("--ready-file={}", ready.display()),
        ];
        let mut process = Process::start(place, dir, side, &myself()?, &args)?;
        process.ready_file(&ready).await?;
        proxies.push(process);
    }
    Ok(Pair::of(a, proxies))
}

/// Starts the server on side b and waits until it serves.
pub(crate) async fn start_server(place: &Place, dir: &Path) -> Result<(Process, SocketAddr)> {
    let ready = dir.join("server.ready");
    let args = [
        "role".to_owned(),
        "server".to_owned(),
        format!("--listen={}", place.addr(ports::free())),
        format!("--ready-file={}", ready.display()),
    ];
    let mut process = Process::start(place, dir, "server", &myself()?, &args)?;
    let addr = process.ready_file(&ready).await?;
    let addr = addr
        .parse()
        .map_err(|_| Error::Protocol(format!("the server's address '{addr}'")))?;
    Ok((process, addr))
}

/// This program's own file.
pub(crate) fn myself() -> Result<std::path::PathBuf> {
    std::env::current_exe().map_err(Error::io("find this program's own file"))
}
