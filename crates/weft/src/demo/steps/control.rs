//! `control`: a control node from nothing.

use std::os::unix::fs::PermissionsExt;

use super::super::http;
use super::super::load::round;
use super::super::mesh::Mesh;
use super::super::report::Findings;

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "a control node from nothing: root and issuing CA made, store open, QUIC listening",
    );
    let started = tokio::time::Instant::now();
    let init = mesh.weft_json(&["init"]).await?;
    init["pin"]
        .as_str()
        .ok_or("weft init printed no pin")?
        .clone_into(&mut mesh.pin);
    let port_0 = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    mesh.start_control(port_0).await?;
    found.figure(format!("ready in {:.0} ms", round(started.elapsed())));

    let control = mesh.control()?;
    let (listens, metrics, pid) = (control.mesh, control.metrics, control.process.pid);
    let ready = http::get(&mesh.env, metrics, "localhost", "/readyz").await?;
    found.check(
        ready.status == 200,
        format!("/readyz to say 200, saw {}", ready.status),
    );
    let ca = mesh.weft_json(&["ca", "show"]).await?;
    found.check(
        ca["pin"] == mesh.pin.as_str(),
        format!(
            "the running authority to have the pin {}, saw {}",
            mesh.pin, ca["pin"]
        ),
    );
    let open = readable_by_others(&mesh.control_dir())?;
    found.check(
        open.is_empty(),
        format!("no file that others can read, saw {open:?}"),
    );

    found.detail("pin", &mesh.pin);
    found.detail("trust_domain", &init["trust_domain"]);
    found.detail("listens_quic", listens);
    found.detail("pid", pid);
    found.detail("authority", ca);
    Ok(found)
}

/// Entries of a state directory (and itself) that someone besides its owner may enter or read.
fn readable_by_others(dir: &std::path::Path) -> Result<Vec<String>, String> {
    let mut open = Vec::new();
    let mut rest = vec![dir.to_owned()];
    while let Some(path) = rest.pop() {
        let wrong = |error| format!("cannot look at {}: {error}", path.display());
        let meta = std::fs::metadata(&path).map_err(wrong)?;
        if meta.permissions().mode() & 0o077 != 0 {
            open.push(path.display().to_string());
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(wrong)? {
                rest.push(entry.map_err(wrong)?.path());
            }
        }
    }
    Ok(open)
}
