//! A link for one turn: `weft-netsim run` around this program.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::process::Command;

use super::turn::TurnFound;
use super::{Condition, Found, LossyArgs, Turn};
use crate::error::{Error, Result};
use crate::pairs::own;

/// How long a turn may take beyond its window: starting a pair over a slow link, warming up, late replies.
const MARGIN: Duration = Duration::from_secs(120);

/// A turn was late, too, if the processes in it got the CPU later than this, p99.
const CPU_LATE_MS: f64 = 4.0;

/// What of weft-netsim's report matters here.
#[derive(Deserialize)]
struct Report {
    late: bool,
    links: Vec<Link>,
    bare_timer: Late,
}

#[derive(Deserialize)]
struct Link {
    forward: Way,
    backward: Way,
}

#[derive(Deserialize)]
struct Way {
    entered_bytes: u64,
    lateness: Late,
}

#[derive(Deserialize)]
struct Late {
    p99_ms: f64,
}

/// The mesh file of a condition.
fn mesh(condition: &Condition) -> String {
    let set = condition.loss.map_or_else(String::new, |loss| {
        format!("    set: {{ loss: {loss}% }}\n")
    });
    format!(
        "nodes:\n  - name: a\n  - name: b\nlinks:\n  - between: [a, b]\n    profile: {}\n{set}",
        condition.profile
    )
}

/// One turn over a link of its own.
pub(super) async fn turn(
    args: &LossyArgs,
    condition: &Condition,
    turn: &Turn,
    seed: u64,
) -> Result<Found> {
    let netsim = args.netsim.canonicalize().map_err(|_| Error::Missing {
        what: "weft-netsim",
        how: "cargo build --release -p weft-netsim-cli".into(),
    })?;
    let dir = tempfile::Builder::new()
        .prefix("weft-benches-")
        .tempdir()
        .map_err(Error::io("make a temporary folder"))?;
    let (file, report) = (dir.path().join("mesh.yaml"), dir.path().join("report.json"));
    std::fs::write(&file, mesh(condition)).map_err(Error::io("write the mesh file"))?;
    let text = serde_json::to_string(turn).map_err(|error| Error::Protocol(error.to_string()))?;
    let mut command = Command::new(netsim);
    command
        .arg("run")
        .arg(&file)
        .args(["--in", "a", "--quiet", "--seed", &seed.to_string()])
        .arg("--report")
        .arg(&report)
        .arg("--")
        .arg(own::myself()?)
        .args(["role", "lossy-turn", &text])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(turn.window + MARGIN, command.output()).await;
    let output = output
        .map_err(|_| Error::Protocol("the turn did not end in time".into()))?
        .map_err(Error::io("run weft-netsim"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::Protocol(said.trim().to_owned()));
    }
    let found: TurnFound = parse("the turn", &output.stdout)?;
    found_over(&report, found)
}

fn found_over(report: &Path, found: TurnFound) -> Result<Found> {
    let text = std::fs::read(report).map_err(Error::io("read what the link did"))?;
    let report: Report = parse("weft-netsim", &text)?;
    let ways = || {
        let links = report.links.iter();
        links.flat_map(|link| [&link.forward, &link.backward])
    };
    Ok(Found {
        outcome: found.outcome,
        first_ms: found.first_ms,
        link_bytes: ways().map(|way| way.entered_bytes).sum(),
        late: report.late || found.cpu_late_p99_ms > CPU_LATE_MS,
        cpu_late_p99_ms: Some(found.cpu_late_p99_ms),
        link_late_p99_ms: ways().map(|way| way.lateness.p99_ms).fold(0.0, f64::max),
        bare_timer_p99_ms: report.bare_timer.p99_ms,
    })
}

fn parse<T: for<'de> Deserialize<'de>>(whose: &str, text: &[u8]) -> Result<T> {
    serde_json::from_slice(text).map_err(|error| {
        let text = String::from_utf8_lossy(text);
        Error::Protocol(format!("{whose} wrote '{text}': {error}"))
    })
}
