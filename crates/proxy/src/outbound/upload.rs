//! The body of a request on its way from the own application into the mesh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;
use weft_env::mutants::{Mutant, broken};
use weft_transport::{Code, SendStream, StreamError};

use super::content::Content;
use crate::headers::sanitise_trailers;

/// Bodies up to this are kept, so that the request can be sent again (proxy-semantics §4).
const KEPT: u64 = 64 * 1024;

/// A request's body.
pub(crate) enum Upload {
    /// All of it: nothing, or a short one.
    Whole(Bytes),
    /// It is passed on as it comes, once.
    Stream(Content),
    /// It has been passed on.
    Gone,
}

impl Upload {
    /// Takes a body in. A short one of known length is waited for.
    ///
    /// # Errors
    /// The application broke off.
    pub(crate) async fn take(mut body: Content, headers: &HeaderMap) -> Result<Self, hyper::Error> {
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        match body.size_hint().exact() {
            Some(length) if length <= KEPT && !headers.contains_key(header::TRAILER) => {}
            _ => return Ok(Self::Stream(body)),
        }
        let mut whole = Bytes::new();
        let mut more = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if whole.is_empty() && more.is_empty() {
                whole = data;
                continue;
            }
            if more.is_empty() {
                more.extend_from_slice(&whole);
            }
            more.extend_from_slice(&data);
        }
        Ok(Self::Whole(if more.is_empty() {
            whole
        } else {
            more.freeze()
        }))
    }

    /// Whether the request can be sent from its start.
    pub(crate) fn replayable(&self) -> bool {
        !matches!(self, Self::Gone)
    }
}

/// Why a body did not get to its end.
#[derive(Debug)]
pub(crate) enum Cut {
    /// By the application.
    Local(hyper::Error),
    /// By the mesh. The response, if there is one, says why.
    Mesh(StreamError),
}

/// Passes a body on to its end.
pub(crate) async fn pump(
    mut body: Content,
    mut send: SendStream,
    sent: Arc<AtomicU64>,
) -> Result<(), Cut> {
    if broken(Mutant::ReadsAhead) {
        let whole = body.collect().await.map_err(Cut::Local)?.to_bytes();
        send.send_data(whole).await.map_err(Cut::Mesh)?;
        return send.finish().await.map_err(Cut::Mesh);
    }
    loop {
        let frame = match body.frame().await {
            Some(Ok(frame)) => frame,
            Some(Err(error)) => {
                // A message that is cut short must not look whole.
                send.reset(Code::REQUEST_CANCELLED);
                return Err(Cut::Local(error));
            }
            None => return send.finish().await.map_err(Cut::Mesh),
        };
        match frame.into_data() {
            Ok(data) => {
                sent.fetch_add(data.len() as u64, Ordering::Relaxed);
                send.send_data(data).await.map_err(Cut::Mesh)?;
            }
            Err(frame) => {
                if let Ok(mut trailers) = frame.into_trailers() {
                    sanitise_trailers(&mut trailers);
                    send.send_trailers(&trailers).await.map_err(Cut::Mesh)?;
                }
            }
        }
    }
}
