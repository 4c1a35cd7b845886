//! The way back: while a connection goes over TCP, QUIC is tried in the background.

use std::sync::Arc;

use tokio::time::{Instant, sleep};

use crate::Target;
use crate::core::Core;
use crate::lifetime::EndReason;
use crate::pool::Key;
use crate::registry::Link;

/// Probes until QUIC answers; then new requests go over QUIC, and those under way on `link` end in peace. Never ends:
/// whoever looks after the connection stops it with that.
pub(crate) async fn back_to_quic(core: &Arc<Core>, link: &Link, target: &Target, key: &Key) {
    loop {
        let wait = core.fallback(|paths, draw| paths.probe_in(target.addr, Instant::now(), draw));
        sleep(wait).await;
        if link.load.is_retired() {
            break;
        }
        match core.handshake_quic(target).await {
            Ok(fresh) => {
                let connection = core.establish(fresh, target, key.clone());
                core.fallback(|paths, _| paths.returned(target.addr, Instant::now()));
                core.pool.replace(key, connection);
                link.retire(EndReason::QuicIsBack);
                tracing::info!(connection = link.id, peer = %target.addr, "UDP passes: back from TCP to QUIC");
                break;
            }
            Err(error) => {
                core.fallback(|paths, _| paths.probe_failed());
                tracing::debug!(peer = %target.addr, %error, "a probe for QUIC was in vain");
            }
        }
    }
    std::future::pending().await
}
