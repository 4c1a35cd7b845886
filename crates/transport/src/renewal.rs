//! A certificate that is renewed while a connection carries something: each end shows its new one on the connection
//! itself, so that a tunnel lives longer than the certificates and authorities that it began with.
//!
//! What is shown is the new chain with a signature over a value that only the two ends of this connection know (TLS
//! exporter, RFC 5705): it proves possession of the new key here, and is of no use on any other connection. The same
//! idea as exported authenticators (RFC 9261). The peer must be who it was; everything that a handshake would check
//! is checked.

use weft_certs::{ExpectedPeer, Identity, SignedDocument, SignedError};
use weft_h3::{Aside, send_aside};

use crate::Direction;
use crate::core::Core;
use crate::registry::Link;
use crate::wire::Wire;

/// The type of the streams that carry it ("weft" in ASCII, but for what does not fit four bytes).
pub(crate) const STREAM_TYPE: u64 = 0x3765_6674;
/// Chains are 1 to 2 KB; the largest that a handshake takes is far below this.
const MAX_MESSAGE: usize = 64 * 1024;
const DOCUMENT_TYPE: &str = "application/vnd.weft.connection";
const LABEL: &[u8] = b"EXPORTER-weft-renewed-identity";

/// Shows our new certificates and takes the peer's; to be cancelled with the connection. Without `aside`, over TCP, the
/// certificates that a connection began with are its last.
pub(crate) async fn keep(core: &Core, link: &Link, aside: Option<Aside>) {
    if let (Some(aside), Wire::Quic(quic)) = (aside, &link.wire) {
        tokio::join!(
            show_ours(core, link, quic),
            take_theirs(core, link, quic, aside)
        );
    }
    std::future::pending().await
}

async fn show_ours(core: &Core, link: &Link, quic: &quinn::Connection) {
    if link.terms.own_not_after.is_none() {
        return;
    }
    let mut changes = core.identity.subscribe();
    let mut shown = link.terms.generation;
    loop {
        // Marked as seen before it is read: a change in between is looked at again, never missed.
        changes.borrow_and_update();
        let identity = core.identity.current();
        // A connection that carries nothing is replaced instead.
        if identity.generation != shown && (link.active)() > 0 {
            shown = identity.generation;
            show(link, quic, &identity).await;
        }
        if changes.changed().await.is_err() {
            return;
        }
    }
}

async fn show(link: &Link, quic: &quinn::Connection, identity: &Identity) {
    let svid = &identity.svid;
    let document = binding(quic, link.terms.direction)
        .and_then(|binding| SignedDocument::sign(DOCUMENT_TYPE, &binding, svid, None));
    let document = match document {
        Ok(document) => document.to_json(),
        Err(error) => {
            tracing::warn!(connection = link.id, %error, "the new certificate is not shown");
            return;
        }
    };
    // To a peer that does not know of this the old certificate sets the connection's end, and it closes it then.
    if let Ok(()) = send_aside(quic, STREAM_TYPE, &document).await {
        link.renew_own(svid.not_after());
        tracing::debug!(connection = link.id, peer = %link.remote(), "new certificate shown");
    }
}

async fn take_theirs(core: &Core, link: &Link, quic: &quinn::Connection, mut aside: Aside) {
    while let Some(message) = aside.next(MAX_MESSAGE).await {
        if let Err(error) = take(core, link, quic, &message) {
            let reason = match &error {
                SignedError::Signer(error) => error.reason(),
                _ => "bad_renewal",
            };
            let detail = format!("the peer's renewed certificate is not taken: {error}");
            core.refusals
                .record(link.terms.direction, link.remote(), reason, detail);
        }
    }
}

fn take(
    core: &Core,
    link: &Link,
    quic: &quinn::Connection,
    message: &[u8],
) -> Result<(), SignedError> {
    let Some(peer) = &link.peer else {
        return Err(SignedError::Malformed("it is of a peer without identity"));
    };
    let identity = core.identity.current();
    let document = SignedDocument::parse(message)?;
    let expected = ExpectedPeer::One(peer.id.clone());
    let now = core.env.wall();
    let (signed, renewed) = document.verify(DOCUMENT_TYPE, &identity.bundles, now, &expected)?;
    if signed != binding(quic, opposite(link.terms.direction))? {
        return Err(SignedError::Malformed("it is of another connection"));
    }
    link.renew_peer(renewed, document.chain()?.into());
    // What changed since `identity` was read is made up for here; the warden sees to what changes from now on.
    core.verify(link, &core.identity.current());
    core.registry.look.notify_one();
    Ok(())
}

/// What the end that dials in this direction signs on this connection.
fn binding(quic: &quinn::Connection, signer: Direction) -> Result<[u8; 32], SignedError> {
    let context: &[u8] = match signer {
        Direction::Outbound => b"client",
        Direction::Inbound => b"server",
    };
    let mut binding = [0; 32];
    quic.export_keying_material(&mut binding, LABEL, context)
        .map_err(|_| SignedError::Unsigned("the connection has no secret of its own"))?;
    Ok(binding)
}

fn opposite(direction: Direction) -> Direction {
    match direction {
        Direction::Inbound => Direction::Outbound,
        Direction::Outbound => Direction::Inbound,
    }
}
