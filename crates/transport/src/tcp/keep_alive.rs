//! Whether the peer lives, and how far away it is: PING frames (RFC 9113 §6.7), as often as QUIC says something.

use std::future::poll_fn;

use h2::{Ping, PingPong};
use tokio::time::{Instant, sleep, timeout};

use super::wire::TcpWire;
use crate::Liveness;

/// Ends, with the reason, when nothing has arrived for too long.
pub(super) async fn watch(mut pings: PingPong, wire: &TcpWire, liveness: Liveness) -> String {
    loop {
        let sent = Instant::now();
        if let Err(error) = pings.send_ping(Ping::opaque()) {
            return error.to_string();
        }
        loop {
            let heard = wire.received();
            let pong = poll_fn(|cx| pings.poll_pong(cx));
            match timeout(liveness.idle_timeout, pong).await {
                Ok(Ok(_)) => break,
                Ok(Err(error)) => return error.to_string(),
                // The pong waits behind what else is being sent.
                Err(_) if wire.received() != heard => {}
                Err(_) => {
                    return format!("nothing arrived for {:?}", liveness.idle_timeout);
                }
            }
        }
        wire.measured(sent.elapsed());
        sleep(liveness.keep_alive).await;
    }
}
