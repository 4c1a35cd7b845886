//! HAProxy of the distribution.

use std::path::Path;

use super::nginx::only;
use super::{Kind, Pair, Site, ports, template};
use crate::certs::SERVER_NAME;
use crate::error::{Error, Result};
use crate::process::{Process, find};

const TCP: &str = include_str!("../../configs/haproxy-tcp.cfg");
const HTTP2: &str = include_str!("../../configs/haproxy-h2.cfg");

pub(super) fn start(kind: Kind, site: &Site, dir: &Path) -> Result<Pair> {
    let program = find("haproxy").ok_or_else(|| Error::Missing {
        what: "HAProxy",
        how: "apt-get install haproxy".into(),
    })?;
    let text = if kind == Kind::HaproxyTcp { TCP } else { HTTP2 };
    let b = site.b.addr(ports::free());
    let a = site.a.addr(ports::free());
    let sides = [("b", &site.b, b, site.server), ("a", &site.a, a, b)];
    let mut proxies = Vec::new();
    for (side, place, listen, upstream) in sides {
        let values = [
            ("listen", listen.to_string()),
            ("upstream", upstream.to_string()),
            ("certs", site.certs.dir().display().to_string()),
            ("name", SERVER_NAME.to_owned()),
            (
                "application",
                if site.grpc { " proto h2" } else { "" }.to_owned(),
            ),
        ];
        let file = dir.join(format!("{side}.cfg"));
        template::write(&only(text, side), &values, &file)?;
        let args = ["-db", "-f", &file.display().to_string()];
        proxies.push(Process::start(place, dir, side, &program, &args)?);
    }
    Ok(Pair::of(a, proxies))
}
