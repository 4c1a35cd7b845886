//! The dialling side's requests.

use std::sync::Arc;

use bytes::Bytes;
use h2::client::SendRequest;
use http::uri::Scheme;
use http::{Method, Request, Uri, Version, header};
use weft_h3::{Code, Error};

use super::codes::unsendable;
use super::recv::RecvHalf;
use super::send::SendHalf;
use super::shared::{Half, Shared};
use super::wire::TcpWire;
use crate::StreamError;

/// Sends requests on one connection.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    sender: SendRequest<Bytes>,
    wire: Arc<TcpWire>,
}

impl Requests {
    pub(super) fn new(sender: SendRequest<Bytes>, wire: Arc<TcpWire>) -> Self {
        Self { sender, wire }
    }

    /// Whether the connection has ended.
    pub(crate) fn is_lost(&self) -> bool {
        self.wire.is_closed()
    }

    /// As [`weft_h3::Requests::send_with`]; beyond what the peer allows at a time it is the response that waits.
    pub(crate) async fn send_with(
        &self,
        request: &Request<()>,
        content: Bytes,
        end: bool,
    ) -> Result<(SendHalf, RecvHalf), StreamError> {
        if self.wire.is_going_away() {
            return Err(Error::GoingAway.into());
        }
        let request = outgoing(request)?;
        let tunnel = request.method() == Method::CONNECT;
        let at_once = end && content.is_empty();
        let mut sender = self.sender.clone();
        let (head, body) = match sender.send_request(request, at_once) {
            Ok(opened) => opened,
            Err(error) if error.is_go_away() || error.is_io() => {
                return Err(Error::GoingAway.into());
            }
            Err(error) => return Err(unsent(&error)),
        };
        let stream = Shared::new(Half::Body(body), Arc::clone(&self.wire), true);
        let recv = RecvHalf::response_to(Arc::clone(&stream), head);
        let mut send = SendHalf::request(stream, tunnel, at_once);
        let sent = match end && !at_once {
            true => send.send_last(content).await,
            false if content.is_empty() => Ok(()),
            false => send.send_data(content).await,
        };
        match sent {
            // The response says why, and is there or on its way (RFC 9113 §8.1).
            Err(StreamError::Stream(Error::Stopped {
                code: Code::NO_ERROR,
            }))
            | Ok(()) => Ok((send, recv)),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn active(&self) -> usize {
        self.wire.active()
    }

    pub(crate) async fn going_away(&self) {
        self.wire.going_away().await;
    }

    pub(crate) async fn drained(&self) {
        self.wire.drained().await;
    }
}

fn unsent(error: &h2::Error) -> StreamError {
    tracing::debug!(%error, "a request cannot be sent over HTTP/2");
    unsendable("its header breaks a rule of HTTP/2")
}

/// The request as HTTP/2 has it (RFC 9113 §8.3.1, §8.5).
fn outgoing(request: &Request<()>) -> Result<Request<()>, StreamError> {
    let mut request = request.clone();
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers_mut().remove(header::HOST);
    let mut parts = request.uri().clone().into_parts();
    if parts.authority.is_none() {
        let host = host.ok_or_else(|| unsendable("a request has no authority"))?;
        let authority = host.as_bytes().try_into();
        parts.authority = Some(authority.map_err(|_| unsendable("its host is not an authority"))?);
    }
    if request.method() == Method::CONNECT {
        let port = parts
            .authority
            .as_ref()
            .and_then(|authority| authority.port_u16());
        if port.is_none_or(|port| port == 0) {
            return Err(unsendable("CONNECT needs an authority with a port"));
        }
        (parts.scheme, parts.path_and_query) = (None, None);
    } else {
        parts.scheme.get_or_insert(Scheme::HTTPS);
        parts
            .path_and_query
            .get_or_insert(http::uri::PathAndQuery::from_static("/"));
    }
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| unsendable("its URI is not one"))?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connect_is_an_authority_with_a_port_and_nothing_else() {
        let connect = |uri: &str| {
            let mut request = Request::new(());
            *request.method_mut() = Method::CONNECT;
            *request.uri_mut() = uri.parse().unwrap();
            outgoing(&request)
        };
        let request = connect("ledger.default:5432").unwrap();
        assert_eq!(request.uri().to_string(), "ledger.default:5432");
        assert!(request.uri().scheme().is_none() && request.uri().path().is_empty());
        for bad in ["ledger.default", "ledger.default:0"] {
            assert!(connect(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_field_becomes_the_authority() {
        let request = Request::get("/a?b").header("host", "invoices.default:80");
        let request = outgoing(&request.body(()).unwrap()).unwrap();
        assert_eq!(request.uri().to_string(), "https://invoices.default:80/a?b");
        assert!(request.headers().is_empty());
        assert!(outgoing(&Request::get("/a").body(()).unwrap()).is_err());
    }
}
