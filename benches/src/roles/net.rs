//! Accepting connections, for each of the roles.

use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use crate::error::{Error, Result};

/// Accepts for ever and serves each connection in a task of its own.
pub(super) async fn serve<F>(
    listen: SocketAddr,
    ready_file: &Path,
    serve: impl Fn(TcpStream) -> F,
) -> Result<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    let what = || format!("listen on {listen}");
    let listener = TcpListener::bind(listen).await.map_err(Error::io(what()))?;
    super::ready(
        ready_file,
        listener.local_addr().map_err(Error::io(what()))?,
    )?;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let _ = stream.set_nodelay(true);
                tokio::spawn(serve(stream));
            }
            // Out of descriptors, or a peer that has gone: the next may do better.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Connects without Nagle's delay.
pub(super) async fn connect(addr: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(addr).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
