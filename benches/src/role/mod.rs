//! The small programs of this package: each is one process, one thread, and as plain as can be.

mod copy;
mod h2;
pub(crate) mod load;
mod server;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::net::{TcpListener, TcpStream};

use crate::error::{Error, Result, write};

/// Which program.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Role {
    /// The application: HTTP/1.1, replies of the asked size
    Server {
        #[command(flatten)]
        place: Place,
    },
    /// Plain TCP in, TLS out
    TlsOut {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        hop: Hop,
    },
    /// TLS in, plain TCP out
    TlsIn {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        hop: Hop,
    },
    /// HTTP/1.1 in, HTTP/2 over TLS out
    H2Out {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        hop: Hop,
    },
    /// HTTP/2 over TLS in, HTTP/1.1 out
    H2In {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        hop: Hop,
    },
    /// The client: prints what it saw as JSON
    Load(load::LoadArgs),
}

/// Where a program listens.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Place {
    /// Address; port 0 asks the system for one
    #[arg(long)]
    pub(crate) listen: SocketAddr,
    /// File that gets the address once it listens
    #[arg(long)]
    pub(crate) ready_file: PathBuf,
}

/// Where a program of a pair sends what comes.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Hop {
    /// Next address
    #[arg(long)]
    pub(crate) to: SocketAddr,
    /// Folder with certificates
    #[arg(long)]
    pub(crate) certs: PathBuf,
}

impl Role {
    /// Runs until killed; the load until it is done.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Server { place } => on_one_thread(server::run(place)),
            Self::TlsOut { place, hop } => on_one_thread(copy::run_out(place, hop)),
            Self::TlsIn { place, hop } => on_one_thread(copy::run_in(place, hop)),
            Self::H2Out { place, hop } => on_one_thread(h2::run_out(place, hop)),
            Self::H2In { place, hop } => on_one_thread(h2::run_in(place, hop)),
            Self::Load(args) => {
                let load = on_one_thread(load::run(args))?;
                let text = serde_json::to_string(&load).map_err(Error::because("print"))?;
                println!("{text}");
                Ok(())
            }
        }
    }
}

fn on_one_thread<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))?
        .block_on(future)
}

/// Listens, and says where.
async fn listen(place: &Place) -> Result<TcpListener> {
    let listener = TcpListener::bind(place.listen)
        .await
        .map_err(Error::io(format!("listen on {}", place.listen)))?;
    let addr = listener.local_addr().map_err(Error::io("own address"))?;
    write(&place.ready_file, &format!("{{\"listen\":\"{addr}\"}}"))?;
    Ok(listener)
}

async fn connect(to: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Serves each connection in a task of its own, for ever.
async fn serve<F, T>(listener: TcpListener, each: impl Fn(TcpStream) -> F) -> Result<()>
where
    F: Future<Output = T> + 'static,
    T: 'static,
{
    let tasks = tokio::task::LocalSet::new();
    tasks
        .run_until(async {
            loop {
                let (stream, _) = listener.accept().await.map_err(Error::io("accept"))?;
                stream.set_nodelay(true).map_err(Error::io("TCP_NODELAY"))?;
                tokio::task::spawn_local(each(stream));
            }
        })
        .await
}
