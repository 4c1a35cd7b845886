//! The body of a request on its way from the own application into the mesh.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;
use tokio::time::timeout;
use weft_env::mutants::{Mutant, broken};
use weft_transport::{Code, SendStream, StreamError};

use super::content::Content;
use crate::headers::{expects_continue, sanitise_trailers};

/// Bodies up to this are kept, so that the request can be sent again (proxy-semantics §4).
const KEPT: u64 = 64 * 1024;
/// An application writes the content of a short request with its head or right behind: one that needs longer than this, on
/// a busy machine, is waiting for something.
const MOMENT: Duration = Duration::from_millis(50);

/// A request's body.
pub(crate) enum Upload {
    /// All of it: nothing, or a short one.
    Whole(Bytes),
    /// It is passed on as it comes, once.
    Stream(Content),
    /// The same, once the application has been told to send it.
    Expected(Content),
    /// It has been passed on.
    Gone,
}

impl Upload {
    /// Takes a body in. A short one of known length is waited for, for a moment: then it goes with the head in one write,
    /// and can be sent again. One that does not come is passed on when it does: who may not send it is told so without.
    ///
    /// # Errors
    /// The application broke off.
    pub(crate) async fn take(mut body: Content, headers: &HeaderMap) -> Result<Self, hyper::Error> {
        if body.is_end_stream() {
            return Ok(Self::Whole(Bytes::new()));
        }
        if expects_continue(headers) {
            // It comes when hyper sends 100, which it does as soon as somebody looks.
            return Ok(Self::Expected(body));
        }
        match body.size_hint().exact() {
            Some(length) if length <= KEPT && !headers.contains_key(header::TRAILER) => {}
            _ => return Ok(Self::Stream(body)),
        }
        let mut gathered = Gathered::default();
        match timeout(MOMENT, gathered.fill(&mut body)).await {
            Ok(filled) => {
                filled?;
                Ok(Self::Whole(gathered.into_bytes()))
            }
            Err(_) => {
                body.put_back(gathered.into_bytes());
                Ok(Self::Stream(body))
            }
        }
    }

    /// Takes out a body that is passed on as it comes, and whether the application waits to be told to send it.
    pub(crate) fn take_stream(&mut self) -> Option<(Content, bool)> {
        if matches!(self, Self::Whole(_)) {
            return None;
        }
        match std::mem::replace(self, Self::Gone) {
            Self::Stream(body) => Some((body, false)),
            Self::Expected(body) => Some((body, true)),
            Self::Whole(_) | Self::Gone => None,
        }
    }

    /// Whether the request can be sent from its start.
    pub(crate) fn replayable(&self) -> bool {
        !matches!(self, Self::Gone)
    }
}

/// Content in one piece, copied only where it came in several.
#[derive(Default)]
struct Gathered {
    whole: Bytes,
    more: BytesMut,
}

impl Gathered {
    /// Takes all there is, to the end. What has come before this is dropped is kept.
    async fn fill(&mut self, body: &mut Content) -> Result<(), hyper::Error> {
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            if self.whole.is_empty() && self.more.is_empty() {
                self.whole = data;
                continue;
            }
            if self.more.is_empty() {
                self.more.extend_from_slice(&self.whole);
            }
            self.more.extend_from_slice(&data);
        }
        Ok(())
    }

    fn into_bytes(self) -> Bytes {
        if self.more.is_empty() {
            self.whole
        } else {
            self.more.freeze()
        }
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
