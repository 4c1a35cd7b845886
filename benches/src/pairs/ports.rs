//! Ports for programs that cannot choose one themselves.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the kernel's range for ports of its own choice, so that a client's socket does not take it.
static NEXT: AtomicU16 = AtomicU16::new(21_000);

/// A port that nobody has, in this namespace and in none of the run's.
pub(super) fn free() -> u16 {
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        let addr = (Ipv4Addr::UNSPECIFIED, port);
        if TcpListener::bind(addr).is_ok() && UdpSocket::bind(addr).is_ok() {
            return port;
        }
    }
}
