//! Bytes as fast as they come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Job, Outcome};
use crate::error::{Error, Result};
use crate::usage::Usage;

/// The word that makes the server a source of bytes.
pub(crate) const WORD: &[u8; 4] = b"BULK";
/// Read at once.
const READ: usize = 256 * 1024;

pub(super) async fn run(job: &Job, streams: u32) -> Result<Outcome> {
    let bytes = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..streams {
        let mut stream = connect(job).await?;
        let bytes = Arc::clone(&bytes);
        tasks.spawn(async move {
            let mut buffer = vec![0; READ];
            while let Ok(more) = stream.read(&mut buffer).await {
                if more == 0 {
                    return;
                }
                bytes.fetch_add(more as u64, Ordering::Relaxed);
            }
        });
    }
    tokio::time::sleep(job.warm_up).await;
    let (before, at) = (Usage::of(&job.proxies), bytes.load(Ordering::Relaxed));
    let started = Instant::now();
    tokio::time::sleep(job.window).await;
    let got = bytes.load(Ordering::Relaxed) - at;
    let outcome = Outcome {
        seconds: started.elapsed().as_secs_f64(),
        bytes: got,
        proxies: Usage::of(&job.proxies).since(before),
        ..Outcome::default()
    };
    if got == 0 {
        return Err(Error::Protocol("no bytes came".into()));
    }
    Ok(outcome)
}

async fn connect(job: &Job) -> Result<TcpStream> {
    let what = || format!("connect to {}", job.entry);
    let mut stream = TcpStream::connect(job.entry)
        .await
        .map_err(Error::io(what()))?;
    stream.write_all(WORD).await.map_err(Error::io(what()))?;
    Ok(stream)
}
