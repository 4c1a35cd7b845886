//! The access log: one structured event per request, on both sides, sharing the request's id.

use std::time::Duration;

use crate::{Protocol, Side};

/// One line of the access log.
#[derive(Debug, Clone, Copy)]
pub struct AccessEntry<'a> {
    /// Id that the logs of both sides share (`x-request-id`).
    pub request_id: &'a str,
    /// Which half of the sidecar writes.
    pub side: Side,
    /// How the traffic is carried.
    pub protocol: Protocol,
    /// What carried it between the nodes: `quic` (HTTP/3) or `tcp` (HTTP/2); empty if nothing did.
    pub transport: &'a str,
    /// Identity of the peer: the called on the outbound side, the caller on the inbound side. Empty if
    /// there was none.
    pub peer: &'a str,
    /// Called service and port, `invoices.default:80`.
    pub authority: &'a str,
    /// HTTP method, or `CONNECT`.
    pub method: &'a str,
    /// Path without its query, which may hold secrets.
    pub path: &'a str,
    /// Status; 0 if the caller left before there was one.
    pub code: u16,
    /// From head to last byte.
    pub duration: Duration,
    /// Body bytes towards the called.
    pub sent_bytes: u64,
    /// Body bytes towards the caller.
    pub received_bytes: u64,
    /// Key exchange of the mesh connection, such as `X25519MLKEM768`. Empty if there was none.
    pub key_exchange: &'a str,
    /// Its cipher.
    pub cipher: &'a str,
    /// Attempts made (1 without retry, 0 if nothing was tried).
    pub attempts: u32,
    /// The rule that decided.
    pub rule: &'a str,
    /// The revision in force for this request.
    pub revision: u64,
    /// Why weft answered or broke off by itself: the same sentence as in `proxy-status`. Empty if it
    /// did not.
    pub reason: &'a str,
}

/// Writes one entry: an event at `info` with the target `access`. Costs next to nothing when the filter
/// leaves the target out (`access=off`).
pub fn access(entry: &AccessEntry<'_>) {
    tracing::info!(
        target: "access",
        request_id = entry.request_id,
        side = entry.side.as_str(),
        protocol = entry.protocol.as_str(),
        transport = entry.transport,
        peer = entry.peer,
        authority = entry.authority,
        method = entry.method,
        path = entry.path,
        code = entry.code,
        duration_ms = millis(entry.duration),
        sent_bytes = entry.sent_bytes,
        received_bytes = entry.received_bytes,
        key_exchange = entry.key_exchange,
        cipher = entry.cipher,
        attempts = entry.attempts,
        rule = entry.rule,
        revision = entry.revision,
        reason = entry.reason,
    );
}

/// To the microsecond: what lies below is no measurement.
fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};
    use tracing_subscriber::fmt::MakeWriter;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;
        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn an_entry_is_one_event_of_target_access_with_its_fields() {
        let out = Captured::default();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .with_writer(out.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            access(&AccessEntry {
                request_id: "r-1",
                side: Side::Outbound,
                protocol: Protocol::Http,
                transport: "tcp",
                peer: "spiffe://weft.local/ns/default/sa/invoices",
                authority: "invoices.default:80",
                method: "GET",
                path: "/a",
                code: 504,
                duration: Duration::from_millis(5000),
                sent_bytes: 0,
                received_bytes: 0,
                key_exchange: "X25519MLKEM768",
                cipher: "TLS_AES_128_GCM_SHA256",
                attempts: 1,
                rule: "HTTPRoute/default/invoices rule 0",
                revision: 7,
                reason: "timed out",
            });
        });
        let line = String::from_utf8(out.0.lock().unwrap().clone()).unwrap();
        assert_eq!(line.lines().count(), 1);
        for part in [
            "\"target\":\"access\"",
            "\"request_id\":\"r-1\"",
            "\"transport\":\"tcp\"",
            "\"code\":504",
            "\"key_exchange\":\"X25519MLKEM768\"",
            "\"cipher\":\"TLS_AES_128_GCM_SHA256\"",
            "\"revision\":7",
        ] {
            assert!(line.contains(part), "missing {part} in {line}");
        }
    }
}
