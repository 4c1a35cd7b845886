//! The TCP+TLS copy pair: what an L4 mesh proxy needs at least. One TLS connection for each plain one.

use std::net::SocketAddr;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional_with_sizes};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Hop, Place, connect, listen, serve};
use crate::error::{Error, Result};
use crate::tls;

/// Bytes copied at a time: one TLS record.
const BUFFER: usize = 16 << 10;

/// Plain in, TLS out.
pub(super) async fn run_out(place: Place, hop: Hop) -> Result<()> {
    let connector = TlsConnector::from(tls::client(&hop.certs, None)?);
    let name = ServerName::try_from(tls::NAME).map_err(Error::because("a server's name"))?;
    serve(listen(&place).await?, move |plain| {
        let (connector, name) = (connector.clone(), name.clone());
        async move {
            let far = connector.connect(name, connect(hop.to).await?).await?;
            copy(plain, far).await
        }
    })
    .await
}

/// TLS in, plain out.
pub(super) async fn run_in(place: Place, hop: Hop) -> Result<()> {
    let acceptor = TlsAcceptor::from(tls::server(&hop.certs, None)?);
    let to: SocketAddr = hop.to;
    serve(listen(&place).await?, move |tcp| {
        let acceptor = acceptor.clone();
        async move {
            let near = acceptor.accept(tcp).await?;
            copy(near, connect(to).await?).await
        }
    })
    .await
}

async fn copy(
    mut a: impl AsyncRead + AsyncWrite + Unpin,
    mut b: impl AsyncRead + AsyncWrite + Unpin,
) -> std::io::Result<()> {
    copy_bidirectional_with_sizes(&mut a, &mut b, BUFFER, BUFFER).await?;
    Ok(())
}
