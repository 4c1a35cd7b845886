//! The two ends of a CONNECT-UDP request.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode};

use super::template::CAPSULE_PROTOCOL;
use super::{UdpTarget, UdpTemplate, describes_content};
use crate::core::capsule::{self, CapsuleReader};
use crate::core::{Fault, udp};
use crate::{Code, Datagrams, Error, RecvStream, Requests, SendStream};

/// What came of a CONNECT-UDP request.
#[derive(Debug)]
pub enum UdpAnswer {
    /// The server passes packets on.
    Open(UdpSender, UdpReceiver),
    /// It does not. The answer's content may follow.
    Refused(Response<()>, RecvStream),
}

impl Requests {
    /// Client: asks the server for a path to `target` (RFC 9298 §3).
    ///
    /// # Errors
    /// As [`send`](Self::send) and [`RecvStream::response`]. [`Error::NotOffered`] when the server does not
    /// offer extended CONNECT.
    pub async fn connect_udp(
        &self,
        template: &UdpTemplate,
        target: &UdpTarget,
    ) -> Result<UdpAnswer, Error> {
        let (send, mut recv) = self.send(&template.request(target), false).await?;
        let response = recv.response().await?;
        if !response.status().is_success() {
            return Ok(UdpAnswer::Refused(response, recv));
        }
        // RFC 9297 §3.2: 204, 205 and 206 speak of content.
        let status = response.status().as_u16();
        if describes_content(response.headers()) || (204..=206).contains(&status) {
            return Err(recv.fail(Fault::malformed(
                "an answer to CONNECT-UDP that speaks of content (RFC 9297 §3.2)",
            )));
        }
        let (send, recv) = ends(send, recv)?;
        Ok(UdpAnswer::Open(send, recv))
    }
}

impl UdpSender {
    /// Server: answers 200 to a request that [`UdpTemplate::target`] accepted, once the target's name is
    /// resolved and the socket is open.
    ///
    /// # Errors
    /// As [`SendStream::send_response`], and [`Error::Unreadable`] for another kind of request.
    pub async fn accept(
        mut send: SendStream,
        recv: RecvStream,
    ) -> Result<(UdpSender, UdpReceiver), Error> {
        let mut response = Response::new(());
        *response.status_mut() = StatusCode::OK;
        let yes = HeaderValue::from_static("?1");
        response.headers_mut().insert(CAPSULE_PROTOCOL, yes);
        send.send_response(&response).await?;
        ends(send, recv)
    }
}

fn ends(send: SendStream, recv: RecvStream) -> Result<(UdpSender, UdpReceiver), Error> {
    // Without them capsules alone will do (RFC 9297 §3.5).
    let datagrams = |recv: &RecvStream| {
        let on = recv.takes_datagrams();
        on.then(|| recv.datagrams()).transpose()
    };
    let sender = UdpSender {
        stream: send,
        datagrams: datagrams(&recv)?,
    };
    let receiver = UdpReceiver {
        datagrams: datagrams(&recv)?,
        stream: recv,
        capsules: udp::capsules(),
        piece: Bytes::new(),
    };
    Ok((sender, receiver))
}

/// Sends UDP payloads to the other end.
///
/// **Ending is explicit**, as with a [`SendStream`]: dropped, it resets the stream.
#[derive(Debug)]
pub struct UdpSender {
    stream: SendStream,
    datagrams: Option<Datagrams>,
}

impl UdpSender {
    /// Sends a UDP payload: in a QUIC DATAGRAM frame, or as a capsule on the stream when the peer takes no
    /// such frames.
    ///
    /// # Errors
    /// [`Error::DatagramTooBig`]: drop the packet; turned into a capsule it would hide from its sender how
    /// much the path carries (RFC 9298 §6.1). Else as [`Datagrams::send`] and [`SendStream::send_data`].
    pub async fn send(&mut self, payload: &[u8]) -> Result<(), Error> {
        // RFC 9298 §5.
        if payload.len() > udp::MAX_PAYLOAD {
            return Err(Error::DatagramTooBig {
                size: payload.len(),
                limit: udp::MAX_PAYLOAD,
            });
        }
        if let Some(datagrams) = self.datagrams.as_ref().filter(|d| d.is_offered()) {
            return datagrams.send_parts([udp::CONTEXT, payload]);
        }
        let mut capsule = Vec::with_capacity(8 + payload.len());
        capsule::datagram_head(udp::CONTEXT.len() + payload.len(), &mut capsule);
        capsule.extend_from_slice(udp::CONTEXT);
        capsule.extend_from_slice(payload);
        self.stream.send_data(capsule.into()).await
    }

    /// Ends our direction.
    ///
    /// # Errors
    /// As [`SendStream::finish`].
    pub async fn finish(&mut self) -> Result<(), Error> {
        self.stream.finish().await
    }

    /// Gives the request up with `code`.
    pub fn reset(&mut self, code: Code) {
        self.stream.reset(code);
    }
}

/// Takes the UDP payloads that the other end sends.
#[derive(Debug)]
pub struct UdpReceiver {
    stream: RecvStream,
    datagrams: Option<Datagrams>,
    capsules: CapsuleReader,
    piece: Bytes,
}

impl UdpReceiver {
    /// The next UDP payload, which may be empty; `None` when the other end has finished. Cancel safe.
    ///
    /// # Errors
    /// As [`RecvStream::data`]; a payload that breaks a rule aborts the stream.
    pub async fn recv(&mut self) -> Result<Option<Bytes>, Error> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// As [`recv`](Self::recv).
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Error>> {
        while let Some(datagrams) = &mut self.datagrams
            && let Poll::Ready(Some(datagram)) = datagrams.poll_recv(cx)
        {
            match udp::payload(datagram) {
                Ok(Some(payload)) => return Poll::Ready(Ok(Some(payload))),
                Ok(None) => {}
                Err(fault) => return Poll::Ready(Err(self.stream.fail(fault))),
            }
        }
        loop {
            while let Some(capsule) = self.capsules.next(&mut self.piece) {
                match udp::capsule_payload(capsule) {
                    Ok(Some(payload)) => return Poll::Ready(Ok(Some(payload))),
                    Ok(None) => {}
                    Err(fault) => return Poll::Ready(Err(self.stream.fail(fault))),
                }
            }
            match ready!(self.stream.poll_data(cx))? {
                Some(piece) => self.piece = piece,
                None => {
                    let end = self.capsules.finish().map(|()| None);
                    return Poll::Ready(end.map_err(|fault| self.stream.fail(fault)));
                }
            }
        }
    }

    /// Tells the other end that we read no further, and why.
    pub fn stop(&mut self, code: Code) {
        self.stream.stop(code);
    }

    /// Datagrams that were dropped because nobody took them in time.
    pub fn dropped(&self) -> u64 {
        self.datagrams.as_ref().map_or(0, Datagrams::dropped)
    }
}
