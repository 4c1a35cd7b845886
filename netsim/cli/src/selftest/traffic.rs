//! Numbered packets, sent on a schedule and written down as they come.

#![allow(
    clippy::disallowed_methods,
    reason = "the self-test measures the kernel's own sockets in namespaces, in real time"
)]

use std::io::ErrorKind;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use weft_netsim_tun::{Clock, LINK_LEVEL, Namespace, raise_priority};

use crate::failure::Failure;

/// A stream of packets.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream {
    /// How many.
    pub(crate) packets: u32,
    /// Size of each, IP and UDP headers included.
    pub(crate) bytes: usize,
    /// From one to the next.
    pub(crate) interval: Duration,
    /// How long the last one may take.
    pub(crate) patience: Duration,
}

/// A packet that came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Its number, from 0.
    pub(crate) number: u32,
    /// When it was sent and when it was received, by one clock.
    pub(crate) sent: Duration,
    /// See `sent`.
    pub(crate) received: Duration,
}

/// IPv4 and UDP headers.
pub(crate) const HEADERS: usize = 28;
/// Number and time of sending.
const STAMP: usize = 12;
/// Packets are sent in groups once in this time, if they follow each other faster.
const TICK: Duration = Duration::from_millis(1);
/// So much waits for a receiver that was kept from its CPU: 20 ms at 1 Gb/s and more.
const RECEIVE_BUFFER: usize = 16 << 20;
/// The receiver looks that often whether the sender has ended.
const LOOK: Duration = Duration::from_millis(50);

/// Sends the stream from one end to the other; gives what came, in the order of arrival.
///
/// # Errors
/// [`Failure::Io`] if a socket or thread cannot be had or fails.
pub(crate) fn pass(
    stream: &Stream,
    from: &(Namespace, Ipv4Addr),
    to: &(Namespace, Ipv4Addr),
) -> Result<Vec<Arrival>, Failure> {
    let open = |end: &(Namespace, Ipv4Addr)| {
        end.0
            .run(|| UdpSocket::bind((end.1, 0)))?
            .map_err(failed("open a socket in the namespace"))
    };
    let (sender, receiver) = (open(from)?, open(to)?);
    let address = receiver.local_addr().map_err(failed("name a socket"))?;
    sender.connect(address).map_err(failed("aim a socket"))?;
    rustix::net::sockopt::set_socket_recv_buffer_size_force(&receiver, RECEIVE_BUFFER)
        .map_err(|error| failed("enlarge a receive buffer")(error.into()))?;
    let clock = Clock::start();
    let sent_all = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let receiving = std::thread::Builder::new()
            .name("receiver".into())
            .spawn_scoped(scope, || receive(stream, &receiver, clock, &sent_all))
            .map_err(failed("start a thread"))?;
        let sending = std::thread::Builder::new()
            .name("sender".into())
            .spawn_scoped(scope, || {
                let result = send(stream, &sender, clock);
                sent_all.store(true, Ordering::Release);
                result
            });
        if sending.is_err() {
            sent_all.store(true, Ordering::Release);
        }
        let sent = sending.map_err(failed("start a thread"))?.join();
        let received = receiving.join();
        match (sent, received) {
            (Ok(sent), Ok(received)) => sent.and(received).map_err(failed("pass packets")),
            (Err(panic), _) | (_, Err(panic)) => std::panic::resume_unwind(panic),
        }
    })
}

fn failed(what: &'static str) -> impl FnOnce(std::io::Error) -> Failure {
    Failure::io(what, "the machine seems to be out of resources")
}

/// Below the link's: the link decides when a packet moves, whoever else is busy.
const LEVEL: i32 = LINK_LEVEL - 1;

fn send(stream: &Stream, socket: &UdpSocket, clock: Clock) -> std::io::Result<()> {
    raise_priority(LEVEL);
    let start = clock.now() + TICK;
    let mut packet = vec![0; stream.bytes.saturating_sub(HEADERS).max(STAMP)];
    let mut number = 0;
    let mut wake = start;
    while number < stream.packets {
        clock.sleep_until(wake);
        while number < stream.packets && start + stream.interval * number <= clock.now() {
            packet[..4].copy_from_slice(&number.to_le_bytes());
            let now = u64::try_from(clock.now().as_nanos()).unwrap_or(u64::MAX);
            packet[4..STAMP].copy_from_slice(&now.to_le_bytes());
            match socket.send(&packet) {
                Ok(_) => number += 1,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        wake = (start + stream.interval * number).max(wake + TICK);
    }
    Ok(())
}

fn receive(
    stream: &Stream,
    socket: &UdpSocket,
    clock: Clock,
    sent_all: &AtomicBool,
) -> std::io::Result<Vec<Arrival>> {
    raise_priority(LEVEL);
    socket.set_read_timeout(Some(LOOK))?;
    let mut arrivals = Vec::with_capacity(stream.packets as usize);
    let mut buffer = [0; 2048];
    let mut last_hope = None;
    loop {
        match socket.recv(&mut buffer) {
            Ok(len) => {
                let received = clock.now();
                if let Some(arrival) = read(&buffer[..len], received) {
                    arrivals.push(arrival);
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                let now = clock.now();
                let until = match last_hope {
                    Some(until) => until,
                    None if sent_all.load(Ordering::Acquire) => {
                        *last_hope.insert(now + stream.patience)
                    }
                    None => continue,
                };
                if now >= until {
                    return Ok(arrivals);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

fn read(packet: &[u8], received: Duration) -> Option<Arrival> {
    let number = u32::from_le_bytes(packet.get(..4)?.try_into().ok()?);
    let sent = u64::from_le_bytes(packet.get(4..STAMP)?.try_into().ok()?);
    Some(Arrival {
        number,
        sent: Duration::from_nanos(sent),
        received,
    })
}
