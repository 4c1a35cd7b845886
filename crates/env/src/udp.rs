//! The UDP socket of a QUIC endpoint.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use socket2::{Domain, Protocol, Socket, Type};

/// Below about 1 MiB a receiver on a fast link loses packets by itself (docs/performance).
const BUFFER_BYTES: usize = 4 << 20;
const ENOUGH_BYTES: usize = 1 << 20;

/// Binds without any address reuse, so that a second process on the port is an error and not a thief.
pub(crate) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    if addr.is_ipv6() && addr.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    ask_for_buffers(&socket, addr);
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

/// The kernel may give less than asked (`net.core.rmem_max`): slower, not wrong, so it is only said.
fn ask_for_buffers(socket: &Socket, addr: SocketAddr) {
    let asked = socket
        .set_recv_buffer_size(BUFFER_BYTES)
        .and_then(|()| socket.set_send_buffer_size(BUFFER_BYTES));
    let receive = socket.recv_buffer_size().unwrap_or(0);
    if asked.is_err() || receive < ENOUGH_BYTES {
        tracing::info!(
            %addr,
            asked = BUFFER_BYTES,
            receive,
            "the kernel gave a small UDP receive buffer: raise net.core.rmem_max to avoid lost packets"
        );
    }
}

/// The largest payload of one `sendmsg`: an IPv4 packet of 65,535 bytes less its headers.
const LARGEST_SEND: usize = 65_507;

/// Splits a batch that the kernel would refuse.
///
/// quinn hands over up to ten packets as one send. With jumbo frames (10 × 8,952 bytes) that is more than
/// one send may carry: the kernel answers `EMSGSIZE`, which quinn-udp takes for a lost MTU probe, and the
/// whole batch is lost in silence.
#[derive(Debug)]
pub(crate) struct SplitBatches(pub(crate) Arc<dyn AsyncUdpSocket>);

impl AsyncUdpSocket for SplitBatches {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.0.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(segment) = transmit
            .segment_size
            .filter(|_| transmit.contents.len() > LARGEST_SEND)
        else {
            return self.0.try_send(transmit);
        };
        let fitting = (LARGEST_SEND / segment).max(1) * segment;
        for contents in transmit.contents.chunks(fitting) {
            // If a later part would block, quinn sends the whole again: a peer drops what it has already
            // seen by its packet number (RFC 9000 §12.3).
            self.0.try_send(&Transmit {
                contents,
                segment_size: (contents.len() > segment).then_some(segment),
                destination: transmit.destination,
                ecn: transmit.ecn,
                src_ip: transmit.src_ip,
            })?;
        }
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [io::IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_recv(cx, bufs, meta)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.0.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.0.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.0.may_fragment()
    }
}
