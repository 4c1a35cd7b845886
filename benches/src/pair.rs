//! Pairs of proxies between a client and a service, each started afresh.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::error::{Error, Result, write};
use crate::process::{Place, Process};
use crate::tls;

/// What stands between client and service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Nothing.
    Direct,
    /// Two copies of bytes, one TLS connection for each plain one.
    TlsCopy,
    /// hyper on both sides, one HTTP/2 connection.
    Http2,
    /// weft, bound TCP port.
    WeftL4,
    /// weft, HTTP.
    WeftL7,
}

impl Kind {
    /// All of them, the ones that ratios are taken to first.
    pub(crate) const ALL: [Self; 5] = [
        Self::Direct,
        Self::TlsCopy,
        Self::Http2,
        Self::WeftL4,
        Self::WeftL7,
    ];

    /// The name in results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::TlsCopy => "TCP+TLS copy",
            Self::Http2 => "HTTP/2 (hyper)",
            Self::WeftL4 => "weft L4",
            Self::WeftL7 => "weft L7",
        }
    }
}

/// Both ends of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Site {
    /// The client's side.
    pub(crate) near: Place,
    /// The service's side.
    pub(crate) far: Place,
    /// Address of the client's side.
    pub(crate) near_ip: IpAddr,
    /// Address of the service's side.
    pub(crate) far_ip: IpAddr,
    /// Folder with the peers' certificates.
    pub(crate) certs: PathBuf,
    /// The `weft` binary.
    pub(crate) weft: PathBuf,
}

/// A running pair with its service.
pub(crate) struct Pair {
    /// What it is.
    pub(crate) kind: Kind,
    /// Where the client goes.
    pub(crate) entry: SocketAddr,
    /// What the client names the service.
    pub(crate) host: &'static str,
    /// The two proxies, calling side first. Empty if there are none.
    pub(crate) proxies: Vec<Process>,
    _others: Vec<Process>,
}

impl Site {
    /// Both ends on this machine.
    pub(crate) fn loopback(dir: &Path, weft: PathBuf) -> Result<Self> {
        let place = Place {
            prefix: Vec::new(),
            dir: dir.to_owned(),
        };
        let certs = dir.join("certs");
        tls::make(&certs)?;
        let ip = IpAddr::from([127, 0, 0, 1]);
        Ok(Self {
            near: place.clone(),
            far: place,
            near_ip: ip,
            far_ip: ip,
            certs,
            weft,
        })
    }

    /// Starts a pair around a service of its own.
    pub(crate) fn start(&self, kind: Kind) -> Result<Pair> {
        let mut site = self.clone();
        for place in [&mut site.near, &mut site.far] {
            place.dir = place.dir.join(format!("{kind:?}").to_lowercase());
            std::fs::create_dir_all(&place.dir).map_err(Error::io("make a folder"))?;
        }
        let (server, service) = site.far.role("server", site.any(false), None)?;
        match kind {
            Kind::Direct => Ok(Pair {
                kind,
                entry: service,
                host: "server",
                proxies: Vec::new(),
                _others: vec![server],
            }),
            Kind::TlsCopy => site.own(kind, ["tls-out", "tls-in"], server, service),
            Kind::Http2 => site.own(kind, ["h2-out", "h2-in"], server, service),
            Kind::WeftL4 | Kind::WeftL7 => site.weft(kind, server, service),
        }
    }

    fn any(&self, near: bool) -> SocketAddr {
        SocketAddr::new(if near { self.near_ip } else { self.far_ip }, 0)
    }

    fn own(
        &self,
        kind: Kind,
        [out, into]: [&str; 2],
        server: Process,
        service: SocketAddr,
    ) -> Result<Pair> {
        let (b, tunnel) = self
            .far
            .role(into, self.any(false), Some((service, &self.certs)))?;
        let (a, entry) = self
            .near
            .role(out, self.any(true), Some((tunnel, &self.certs)))?;
        Ok(Pair {
            kind,
            entry,
            host: "server",
            proxies: vec![a, b],
            _others: vec![server],
        })
    }

    fn weft(&self, kind: Kind, server: Process, service: SocketAddr) -> Result<Pair> {
        let mesh = Weft::start(self)?;
        let apps = [
            format!("--app=http/80={service}"),
            format!("--app=tcp/9000={service}"),
        ];
        let (b, _) = mesh.sidecar(&self.far, "server", self.far_ip, &apps)?;
        let tcp = format!("--tcp-listen={}:0=server:9000", self.near_ip);
        let (a, ready) = mesh.sidecar(&self.near, "client", self.near_ip, &[tcp])?;
        let entry = match kind {
            Kind::WeftL4 => address(&ready["tcp"][0]),
            _ => address(&ready["outbound"]),
        }?;
        Ok(Pair {
            kind,
            entry,
            host: "server",
            proxies: vec![a, b],
            _others: vec![mesh.control, server],
        })
    }
}

/// A mesh without sidecars yet.
struct Weft<'a> {
    site: &'a Site,
    control: Process,
    addr: SocketAddr,
    pin: String,
}

/// Who may call the service. What no policy allows is denied.
const POLICY: &str = "\
apiVersion: weft.dev/v1
kind: AuthorizationPolicy
metadata: { name: server }
spec:
  targetRefs: [{ kind: Service, name: server }]
  rules:
    - from: [{ source: { principals: [\"spiffe://weft.local/ns/default/sa/client\"] } }]
";

impl<'a> Weft<'a> {
    fn start(site: &'a Site) -> Result<Self> {
        let state = format!("--state-dir={}", site.near.dir.join("control").display());
        let run = |args: &[&str]| admin(site, args, &state);
        let init = run(&["init", "-o", "json"])?;
        let pin = init["pin"]
            .as_str()
            .ok_or(Error::said("init gave no pin"))?;
        let mut command = site.near.command(&site.weft);
        command
            .args(["control", &state, "--log-level=warn"])
            .arg(format!("--listen={}:0", site.near_ip))
            .arg("--metrics=127.0.0.1:0")
            .arg("--ready-file")
            .arg(site.near.ready_file("control"));
        let mut control = site.near.start("control", command)?;
        let addr = address(&control.ready()?["mesh"])?;
        let policy = site.near.dir.join("policy.yaml");
        write(&policy, POLICY)?;
        run(&["apply", "-f", &policy.to_string_lossy(), "-o", "json"])?;
        Ok(Self {
            site,
            control,
            addr,
            pin: pin.to_owned(),
        })
    }

    fn sidecar(
        &self,
        place: &Place,
        service: &str,
        ip: IpAddr,
        more: &[String],
    ) -> Result<(Process, Value)> {
        let state = self.site.near.dir.join("control");
        let made = admin(
            self.site,
            &["token", "create", "--service", service, "-o", "json"],
            &format!("--state-dir={}", state.display()),
        )?;
        let token = made["token"].as_str().ok_or(Error::said("no token"))?;
        let token_file = place.dir.join(format!("{service}.token"));
        write(&token_file, token)?;
        set_private(&token_file)?;
        let mut command = place.command(&self.site.weft);
        command
            .args(["sidecar", "--log-level=warn", "--metrics=127.0.0.1:0"])
            .arg(format!("--state-dir={}", place.dir.join(service).display()))
            .arg(format!("--control={}", self.addr))
            .arg(format!("--pin={}", self.pin))
            .arg(format!("--token-file={}", token_file.display()))
            .arg(format!("--listen={ip}:0"))
            .arg(format!("--outbound={ip}:0"))
            .args(more)
            .arg("--ready-file")
            .arg(place.ready_file(service));
        let mut process = place.start(service, command)?;
        let ready = process.ready()?;
        Ok((process, ready))
    }
}

fn set_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(Error::io(format!("protect {}", path.display())))
}

fn admin(site: &Site, args: &[&str], state: &str) -> Result<Value> {
    let mut command = site.near.command(&site.weft);
    let output = command
        .args(args)
        .arg(state)
        .stderr(Stdio::piped())
        .output()
        .map_err(Error::io("run weft"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::said(format!("weft {}: {said}", args[0])));
    }
    serde_json::from_slice(&output.stdout).map_err(Error::because("the output of weft"))
}

fn address(value: &Value) -> Result<SocketAddr> {
    let text = value.as_str().unwrap_or_default();
    text.parse()
        .map_err(|_| Error::said(format!("a ready file has no address but {value}")))
}

impl Place {
    /// Starts one of this package's programs and gives where it listens.
    pub(crate) fn role(
        &self,
        role: &str,
        listen: SocketAddr,
        hop: Option<(SocketAddr, &Path)>,
    ) -> Result<(Process, SocketAddr)> {
        let mut command = self.this()?;
        command
            .args(["role", role])
            .arg(format!("--listen={listen}"))
            .arg("--ready-file")
            .arg(self.ready_file(role));
        if let Some((to, certs)) = hop {
            command.arg(format!("--to={to}")).arg("--certs").arg(certs);
        }
        let mut process = self.start(role, command)?;
        let addr = address(&process.ready()?["listen"])?;
        Ok((process, addr))
    }

    /// This binary again.
    pub(crate) fn this(&self) -> Result<Command> {
        let exe = std::env::current_exe().map_err(Error::io("find this binary"))?;
        Ok(self.command(&exe))
    }
}

/// The `weft` to measure: the given one, or the one beside this binary.
pub(crate) fn weft_binary(given: Option<&Path>) -> Result<PathBuf> {
    let exe = std::env::current_exe().map_err(Error::io("find this binary"))?;
    let weft = given.map_or_else(|| exe.with_file_name("weft"), Path::to_owned);
    if weft.exists() {
        return Ok(weft);
    }
    Err(Error::NotHere {
        what: weft.display().to_string(),
        install: "cargo build --release -p weft".to_owned(),
    })
}
