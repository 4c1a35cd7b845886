//! A CONNECT of the mesh to a TCP port of the own application.

use std::sync::Arc;

use bytes::Bytes;
use http::{Response, StatusCode};
use weft_transport::{RecvStream, SendStream};

use super::app::App;
use super::refuse;
use crate::record::Record;
use crate::tunnel::{self, Counters};

/// Connects, says so, and carries bytes until both sides are done.
pub(super) async fn tunnel(
    app: &Arc<App>,
    mut send: SendStream,
    recv: RecvStream,
    mut record: Record,
) {
    let stopped = send.stopped();
    let connected = tokio::select! {
        biased;
        connected = app.connect() => connected,
        // The caller does not wait any longer.
        _ = stopped => return,
    };
    let stream = match connected {
        Ok(stream) => stream,
        Err(refusal) => return refuse(&mut send, recv, &mut record, &refusal).await,
    };
    record.tcp_opened();
    // RFC 9114 §4.4: success is said only once the connection stands.
    if send.send_response(&Response::new(())).await.is_err() {
        return stream.reset();
    }
    record.answered(StatusCode::OK);
    let sent = Arc::clone(&record.sent);
    let count = Counters {
        to_mesh: &record.received,
        to_local: &sent,
    };
    match tunnel::carry(stream, Bytes::new(), send, recv, count).await {
        Ok(()) => record.ended(),
        Err(broken) => record.broke_off(broken.to_string()),
    }
}
