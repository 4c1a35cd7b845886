//! `tcp`: a byte stream through the mesh, half-closed in one direction and then in the other.

use std::time::Duration;

use aws_lc_rs::digest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::Instant;

use super::super::load::round;
use super::super::mesh::{Mesh, TCP_PORT};
use super::super::report::Findings;

/// Bytes each way.
const SIZE: usize = 1024 * 1024;

pub(in super::super) async fn run(mesh: &mut Mesh) -> Result<Findings, String> {
    let mut found = Findings::of(
        "a TCP stream through the mesh: each direction closed in turn, bytes unchanged",
    );
    let addr = *mesh
        .sidecar("orders")?
        .tcp
        .first()
        .ok_or("orders has no TCP listener")?;
    let mut sent = vec![0; SIZE];
    mesh.env.rng("demo-tcp").fill_bytes(&mut sent);

    let started = Instant::now();
    let exchange = async {
        let stream = mesh.env.connect(addr).await?;
        let (mut reader, mut writer) = tokio::io::split(stream);
        writer.write_all(&sent).await?;
        // The application answers only once it has seen the end of what it reads: until then, silence.
        let mut early = [0];
        let quiet = tokio::time::timeout(Duration::from_millis(50), reader.read(&mut early))
            .await
            .is_err();
        writer.shutdown().await?;
        let mut received = Vec::with_capacity(SIZE);
        // To the end: the application has half-closed its direction as well.
        reader.read_to_end(&mut received).await?;
        Ok::<_, std::io::Error>((quiet, received))
    };
    let (quiet, received) = tokio::time::timeout(Duration::from_secs(10), exchange)
        .await
        .map_err(|_| "the stream did not end within 10 s".to_owned())?
        .map_err(|error| format!("the stream to invoices:{TCP_PORT} broke: {error}"))?;
    let took = started.elapsed();

    let (sent_hash, received_hash) = (sha256(&sent), sha256(&received));
    found.check(quiet, "no answer before the caller half-closed");
    found.check(
        received.len() == SIZE,
        format!("{SIZE} bytes back, saw {}", received.len()),
    );
    found.check(sent_hash == received_hash, "the same SHA-256 on both ways");
    found.figure(format!("2 × 1 MiB in {:.0} ms", round(took)));
    found.detail("bytes_sent", SIZE);
    found.detail("bytes_received", received.len());
    found.detail("sha256_sent", sent_hash);
    found.detail("sha256_received", received_hash);
    found.detail("answered_only_after_half_close", quiet);
    Ok(found)
}

fn sha256(bytes: &[u8]) -> String {
    use std::fmt::Write;
    digest::digest(&digest::SHA256, bytes)
        .as_ref()
        .iter()
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}
