//! The TCP+TLS copy pair: the least that a proxy with mutual TLS does. One TLS connection for each TCP
//! connection, bytes copied both ways.

use std::sync::Arc;

use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional_with_sizes;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::{Side, SideArgs, net};
use crate::certs::{Certs, SERVER_NAME};
use crate::error::{Error, Result};

/// A TLS record: more at once gives nothing, less costs system calls.
const BUFFER: usize = 64 * 1024;

pub(super) async fn run(args: SideArgs) -> Result<()> {
    let certs = Certs::in_dir(&args.certs);
    let upstream = args.upstream;
    match args.side {
        Side::A => {
            let connector = TlsConnector::from(certs.client_config("a", &[])?);
            let name =
                ServerName::try_from(SERVER_NAME).map_err(|error| Error::Tls(error.to_string()))?;
            net::serve(
                args.listen,
                &args.ready_file,
                move |mut plain: TcpStream| {
                    let (connector, name) = (connector.clone(), name.clone());
                    async move {
                        let Ok(tcp) = net::connect(upstream).await else {
                            return;
                        };
                        let Ok(mut secure) = connector.connect(name, tcp).await else {
                            return;
                        };
                        let _ =
                            copy_bidirectional_with_sizes(&mut plain, &mut secure, BUFFER, BUFFER)
                                .await;
                    }
                },
            )
            .await
        }
        Side::B => {
            let acceptor = TlsAcceptor::from(Arc::clone(&certs.server_config("b", &[])?));
            net::serve(args.listen, &args.ready_file, move |tcp| {
                let acceptor = acceptor.clone();
                async move {
                    let Ok(mut secure) = acceptor.accept(tcp).await else {
                        return;
                    };
                    let Ok(mut plain) = net::connect(upstream).await else {
                        return;
                    };
                    let _ = copy_bidirectional_with_sizes(&mut secure, &mut plain, BUFFER, BUFFER)
                        .await;
                }
            })
            .await
        }
    }
}
