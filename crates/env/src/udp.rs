//! The UDP socket of a QUIC endpoint.

use std::io;
use std::net::{SocketAddr, UdpSocket};

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
