//! nginx of the distribution: no HTTP/2 to upstreams, so TCP or HTTP/1.1 in TLS.

use std::path::Path;

use super::{Kind, Pair, Site, folder, ports, template};
use crate::certs::SERVER_NAME;
use crate::error::{Error, Result};
use crate::process::{Process, find};

const TCP: &str = include_str!("../../configs/nginx-tcp.conf");
const HTTP: &str = include_str!("../../configs/nginx-http.conf");
/// Where Debian puts the module for TCP.
const MODULE: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

pub(super) fn start(kind: Kind, site: &Site, dir: &Path) -> Result<Pair> {
    let program = find("nginx").ok_or_else(missing)?;
    if kind == Kind::NginxTcp && !Path::new(MODULE).is_file() {
        return Err(missing());
    }
    let text = if kind == Kind::NginxTcp { TCP } else { HTTP };
    let b = site.b.addr(ports::free());
    let a = site.a.addr(ports::free());
    let sides = [("b", &site.b, b, site.server), ("a", &site.a, a, b)];
    let mut proxies = Vec::new();
    for (side, place, listen, upstream) in sides {
        let home = folder(dir, side)?;
        let values = [
            ("listen", listen.to_string()),
            ("upstream", upstream.to_string()),
            ("certs", site.certs.dir().display().to_string()),
            ("side", side.to_owned()),
            ("name", SERVER_NAME.to_owned()),
            ("module", MODULE.to_owned()),
            ("home", home.display().to_string()),
        ];
        // One file has both sides: what is for one of them is marked, and removed for the other.
        let text = only(text, side);
        let file = template::write(&text, &values, &home.join("nginx.conf"))?;
        let args = [
            "-p",
            &home.display().to_string(),
            "-c",
            &file.display().to_string(),
        ];
        proxies.push(Process::start(place, dir, side, &program, &args)?);
    }
    Ok(Pair::of(a, proxies))
}

fn missing() -> Error {
    Error::Missing {
        what: "nginx",
        how: "apt-get install nginx-light libnginx-mod-stream".into(),
    }
}

/// The lines of one side: those that end in `#a` or `#b` are only that side's.
pub(super) fn only(text: &str, side: &str) -> String {
    let other = if side == "a" { "#b" } else { "#a" };
    let lines = text.lines().filter(|line| !line.ends_with(other));
    lines.map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_side_has_its_own_lines_and_the_common_ones() {
        let text = "x\ny #a\nz #b\n";
        assert_eq!(only(text, "a"), "x\ny #a\n");
        assert_eq!(only(text, "b"), "x\nz #b\n");
    }
}
