//! What this program is when it starts itself again.

mod copy;
mod h2_pair;
mod net;
mod server;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};

use crate::error::{Error, Result};
use crate::load::Job;
use crate::lossy::Turn;
use crate::micro;
use crate::output;

/// One process of a run.
#[derive(Debug, Subcommand)]
pub(crate) enum Role {
    /// The service: HTTP/1.1, HTTP/2 and a source of bytes, on one port
    Server(ServerArgs),
    /// The client: does one job and prints what it found
    Load {
        /// The job, as JSON
        job: String,
    },
    /// One turn over a bad link: starts the pair on both of its sides, and prints what it found
    LossyTurn {
        /// The turn, as JSON
        turn: String,
    },
    /// One of the parts, so many times
    Part { name: String, times: u32 },
    /// One side of a pair that copies bytes between TCP and TLS
    Copy(SideArgs),
    /// One side of a pair that takes HTTP/1.1 and speaks HTTP/2 over TLS to the other
    H2(SideArgs),
}

/// Where the server is.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    ready_file: PathBuf,
}

/// One side of a pair.
#[derive(Debug, Clone, Args)]
pub(crate) struct SideArgs {
    #[arg(long, value_enum)]
    side: Side,
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    upstream: SocketAddr,
    /// Folder with the certificates
    #[arg(long)]
    certs: PathBuf,
    #[arg(long)]
    ready_file: PathBuf,
}

/// Which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// Beside the client.
    A,
    /// Beside the server.
    B,
}

impl Role {
    /// Runs it on this thread alone, as all proxies here have one worker.
    pub(crate) async fn run(self) -> Result<()> {
        match self {
            Self::Server(args) => server::run(args.listen, &args.ready_file).await,
            Self::Load { job } => {
                let job: Job = serde_json::from_str(&job)
                    .map_err(|error| Error::Protocol(format!("the job: {error}")))?;
                let outcome = job.run().await?;
                output::line(&serde_json::to_string(&outcome).unwrap_or_default());
                Ok(())
            }
            Self::LossyTurn { turn } => {
                let turn: Turn = serde_json::from_str(&turn)
                    .map_err(|error| Error::Protocol(format!("the turn: {error}")))?;
                let found = turn.run().await?;
                output::line(&serde_json::to_string(&found).unwrap_or_default());
                Ok(())
            }
            Self::Part { name, times } => micro::repeat(&name, times),
            Self::Copy(args) => copy::run(args).await,
            Self::H2(args) => h2_pair::run(args).await,
        }
    }
}

/// Tells the starter where this process serves. Written aside and moved, so that it is never seen half.
fn ready(file: &Path, addr: SocketAddr) -> Result<()> {
    let aside = file.with_extension("new");
    std::fs::write(&aside, addr.to_string())
        .and_then(|()| std::fs::rename(&aside, file))
        .map_err(Error::io(format!("write {}", file.display())))
}
