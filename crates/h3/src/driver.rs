//! The connection's own streams: control and QPACK, ours and the peer's.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use quinn::{ConnectionError, SendStream, StoppedError, VarInt, WriteError};

use crate::aside::{Aside, Outlet};
use crate::core::control::ControlEvent;
use crate::core::frame::{grease, kind};
use crate::core::uni::StreamType;
use crate::core::{Fault, Role, settings, varint};
use crate::credit::{self, Changes};
use crate::peer_streams::PeerStreams;
use crate::priority;
use crate::readers::{self, Lending};
use crate::server::admit;
use crate::shared::{Shared, changed};
use crate::{Code, Error};

/// Keeps one connection going: spawn [`run`](Self::run). Dropped, at whatever point, it closes the
/// connection with `H3_NO_ERROR`, so that none lingers half alive.
#[derive(Debug)]
pub struct Driver {
    shared: Arc<Shared>,
    aside: Option<Outlet>,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            aside: None,
        }
    }

    /// Hands over the peer's unidirectional streams of this type, as messages. The last type asked for wins.
    #[must_use]
    pub fn with_aside(mut self, kind: u64) -> (Self, Aside) {
        let (aside, outlet) = Aside::new(kind);
        self.aside = Some(outlet);
        (self, aside)
    }

    /// Lets the connection lend of this memory to readers that stand still. Without any, they hold up the others once
    /// they have filled the connection's window.
    #[must_use]
    pub fn with_lending(self, lending: Lending) -> Self {
        self.shared.credit.set_lending(lending);
        self
    }

    /// Opens our control and QPACK streams, reads the peer's, and sends GOAWAY when asked to. Runs until
    /// the connection ends, and tells why.
    pub async fn run(mut self) -> Error {
        let aside = self.aside.take();
        let Err(error) = drive(&self.shared, aside).await;
        error
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.shared.close(Code::NO_ERROR, "");
        if let Some(channels) = &self.shared.channels {
            channels.close_all();
        }
    }
}

async fn drive(shared: &Arc<Shared>, aside: Option<Outlet>) -> Result<Infallible, Error> {
    let mut peer = PeerStreams::new(shared.role, aside);
    let mut ours = pin!(send_ours(shared));
    let mut datagrams = pin!(take_datagrams(shared));
    let mut readers = pin!(readers::watch(shared));
    let mut changes = Changes::new();
    let prioritize = |stream, given| priority::update(shared, stream, given);
    loop {
        tokio::select! {
            biased;
            reason = shared.conn.closed() => return Err(shared.closed(reason, false)),
            result = &mut ours => return result,
            event = peer.next(|| shared.work(), prioritize) => match event.map_err(|fault| fail(shared, fault))? {
                ControlEvent::Settings(settings) => {
                    shared.set_peer_settings(settings);
                }
                ControlEvent::Goaway(id) if shared.role == Role::Client => {
                    shared.set_peer_goaway(id);
                }
                // A client's GOAWAY is about pushes, of which there are none.
                ControlEvent::Goaway(_) => {}
                // They are given to `prioritize`.
                ControlEvent::Priority { .. } => {}
                ControlEvent::Credit(word) => {
                    credit::hear(shared, word, &mut changes).map_err(|fault| fail(shared, fault))?;
                }
            },
            stream = shared.conn.accept_uni(), if peer.has_room() => {
                peer.add(stream.map_err(|reason| shared.closed(reason, false))?);
            }
            result = &mut datagrams => return result,
            never = &mut readers => match never {},
            result = refuse_requests(shared) => return result,
        }
    }
}

/// Hands datagrams to their requests.
async fn take_datagrams(shared: &Shared) -> Result<Infallible, Error> {
    /// Taken before anything else gets its turn.
    const BATCH: usize = 64;
    let Some(channels) = &shared.channels else {
        // None were asked for: QUIC keeps a few and drops the rest.
        return std::future::pending().await;
    };
    loop {
        for _ in 0..BATCH {
            let frame = shared.conn.read_datagram().await;
            let frame = frame.map_err(|reason| shared.closed(reason, false))?;
            channels
                .dispatch(frame)
                .map_err(|fault| fail(shared, fault))?;
        }
        tokio::task::yield_now().await;
    }
}

/// Refuses bidirectional streams that nobody else takes: a server's after its GOAWAY, and all of those
/// that a server opens.
async fn refuse_requests(shared: &Arc<Shared>) -> Result<Infallible, Error> {
    if shared.role == Role::Server {
        shared.local_finished().await;
    }
    loop {
        let accepted = shared.conn.accept_bi().await;
        let (send, recv) = accepted.map_err(|reason| shared.closed(reason, false))?;
        if shared.role == Role::Client {
            // RFC 9114 §6.1.
            return Err(shared.fail(
                Code::STREAM_CREATION_ERROR,
                "a server opened a bidirectional stream",
            ));
        }
        // What it lets in is dropped, and so rejected, too.
        drop(admit(shared, send, recv));
    }
}

/// Opens our streams and writes what there is to say on them.
async fn send_ours(shared: &Shared) -> Result<Infallible, Error> {
    let mut first = vec![StreamType::CONTROL];
    let config = &shared.config;
    settings::encode(&config.settings(shared.role), config.grease, &mut first);
    if config.grease {
        varint::encode(grease(11), &mut first);
        varint::encode(0, &mut first);
    }
    let mut control = open(shared, &first).await?;
    shared.set_settings_sent();
    let encoder = open(shared, &[StreamType::QPACK_ENCODER]).await?;
    let decoder = open(shared, &[StreamType::QPACK_DECODER]).await?;

    let stops = (control.stopped(), encoder.stopped(), decoder.stopped());
    let mut stopped = pin!(async move {
        tokio::select! {
            biased;
            stop = stops.0 => stop,
            stop = stops.1 => stop,
            stop = stops.2 => stop,
        }
    });
    let mut announced = None;
    loop {
        let next = changed(&shared.local_changed, || {
            let id = shared.local().announced();
            let id = id.filter(|_| id != announced);
            let words = shared.credit.take_words();
            (id.is_some() || !words.is_empty()).then_some((id, words))
        });
        tokio::select! {
            biased;
            stop = &mut stopped => return Err(stopped_critical(shared, stop)),
            (id, mut words) = next => {
                if let Some(id) = id {
                    words.extend(goaway(id));
                    announced = Some(id);
                }
                shared.turns.set_urgent(true);
                let written = write(shared, &mut control, &words).await;
                shared.turns.set_urgent(false);
                written?;
            }
        }
    }
}

fn goaway(id: u64) -> Vec<u8> {
    let mut payload = Vec::with_capacity(varint::MAX_LEN);
    varint::encode(id, &mut payload);
    let mut frame = Vec::with_capacity(2 + varint::MAX_LEN);
    varint::encode(kind::GOAWAY, &mut frame);
    varint::encode(payload.len() as u64, &mut frame);
    frame.extend_from_slice(&payload);
    frame
}

async fn open(shared: &Shared, first: &[u8]) -> Result<SendStream, Error> {
    let opened = shared.conn.open_uni().await;
    let mut stream = opened.map_err(|reason| shared.closed(reason, false))?;
    priority::before_all(&stream);
    write(shared, &mut stream, first).await?;
    Ok(stream)
}

async fn write(shared: &Shared, stream: &mut SendStream, bytes: &[u8]) -> Result<(), Error> {
    stream.write_all(bytes).await.map_err(|error| match error {
        WriteError::ConnectionLost(reason) => shared.closed(reason, false),
        WriteError::Stopped(code) => stopped_critical(shared, Ok(Some(code))),
        WriteError::ClosedStream | WriteError::ZeroRttRejected => {
            stopped_critical(shared, Ok(None))
        }
    })
}

/// RFC 9114 §6.2.1: nobody may ask for a critical stream to end.
fn stopped_critical(shared: &Shared, stop: Result<Option<VarInt>, StoppedError>) -> Error {
    match stop {
        Err(StoppedError::ConnectionLost(reason)) => shared.closed(reason, false),
        Err(StoppedError::ZeroRttRejected) => shared.closed(ConnectionError::Reset, false),
        Ok(_) => shared.fail(
            Code::CLOSED_CRITICAL_STREAM,
            "our control or QPACK stream was stopped",
        ),
    }
}

fn fail(shared: &Shared, fault: Fault) -> Error {
    match fault {
        Fault::Connection { code, reason } | Fault::Stream { code, rule: reason } => {
            shared.fail(code, reason)
        }
        Fault::TooLarge => shared.fail(Code::EXCESSIVE_LOAD, "a control frame is too large"),
    }
}
