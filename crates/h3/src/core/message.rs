//! The frames of one request stream (RFC 9114 §4.1): header, content, trailers, in this order and no other.
//!
//! Nothing but a HEADERS payload is ever kept, and that only up to our announced limit: content is handed on
//! as slices of what arrived, unknown frames are skipped byte by byte.

use bytes::{Buf, Bytes, BytesMut};

use super::frame::{HeadReader, Idle, kind};
use super::{Fault, Role};
use crate::Code;

/// Frames in a row that bring nothing. Greasing peers send one or two for each message.
pub(crate) const MAX_IDLE: u32 = 1024;

/// What the next bytes of a stream mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// A header's encoded field section; may come again after interim responses.
    Head(Bytes),
    /// A piece of the content.
    Data(Bytes),
    /// The trailers' encoded field section.
    Trailers(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Content,
    /// After trailers.
    End,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Frame {
    Between,
    Data(u64),
    Block(u64),
    Skip(u64),
}

/// What may follow a final header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// Any number of bytes, and trailers.
    Open,
    /// This many bytes, and trailers.
    Exactly(u64),
    /// The byte stream of a tunnel: DATA frames only (RFC 9114 §4.4).
    Tunnel,
}

/// Reads one direction of a request stream.
#[derive(Debug)]
pub(crate) struct MessageReader {
    role: Role,
    stage: Stage,
    frame: Frame,
    head: HeadReader,
    block: BytesMut,
    max_block: u64,
    tunnel: bool,
    idle: Idle,
    /// Content still to come, when the header said how much.
    left: Option<u64>,
}

impl MessageReader {
    /// A reader for an endpoint of this role that keeps encoded field sections up to `max_block` bytes.
    pub(crate) fn new(role: Role, max_block: u64) -> Self {
        Self {
            role,
            stage: Stage::Head,
            frame: Frame::Between,
            head: HeadReader::default(),
            block: BytesMut::new(),
            max_block,
            tunnel: false,
            idle: Idle::new(MAX_IDLE),
            left: None,
        }
    }

    /// The final header was read; `content` follows.
    pub(crate) fn head_done(&mut self, content: Content) {
        debug_assert_eq!(self.stage, Stage::Head);
        self.stage = Stage::Content;
        self.tunnel = content == Content::Tunnel;
        self.left = match content {
            Content::Exactly(length) => Some(length),
            _ => None,
        };
    }

    /// Whether the final header is still to come.
    pub(crate) fn expects_head(&self) -> bool {
        self.stage == Stage::Head
    }

    /// The next event in `input`; `None` when it was used up.
    pub(crate) fn next(&mut self, input: &mut Bytes) -> Result<Option<Event>, Fault> {
        loop {
            match self.frame {
                Frame::Between => match self.head.read(input) {
                    Some(head) => self.frame = self.admit(head.kind, head.len)?,
                    None => return Ok(None),
                },
                Frame::Data(0) | Frame::Skip(0) => self.frame = Frame::Between,
                _ if input.is_empty() && self.frame != Frame::Block(0) => return Ok(None),
                Frame::Data(left) => {
                    let data = take(input, left);
                    self.frame = Frame::Data(left - data.len() as u64);
                    return Ok(Some(Event::Data(data)));
                }
                Frame::Skip(left) => {
                    let step = (input.len() as u64).min(left);
                    input.advance(step as usize);
                    self.frame = Frame::Skip(left - step);
                }
                Frame::Block(left) => {
                    let part = take(input, left);
                    let left = left - part.len() as u64;
                    self.frame = Frame::Block(left);
                    if let Some(block) = self.collect(&part, left) {
                        self.frame = Frame::Between;
                        return Ok(Some(self.section(block)));
                    }
                }
            }
        }
    }

    /// The stream has ended. An error when that is in the middle of something.
    pub(crate) fn finish(&self) -> Result<(), Fault> {
        let between = matches!(self.frame, Frame::Between | Frame::Data(0) | Frame::Skip(0));
        if !between || !self.head.is_empty() {
            // RFC 9114 §7.1.
            return Err(Fault::connection(
                Code::FRAME_ERROR,
                "a stream ends inside a frame",
            ));
        }
        if self.stage == Stage::Head {
            return Err(match self.role {
                Role::Server => Fault::Stream {
                    code: Code::REQUEST_INCOMPLETE,
                    rule: "a request ends before its header",
                },
                Role::Client => Fault::malformed("a response ends before its header"),
            });
        }
        match self.left {
            Some(left) if left > 0 => Err(Fault::malformed(
                "the content is shorter than content-length",
            )),
            _ => Ok(()),
        }
    }

    /// Whether a frame of this kind may stand here.
    fn admit(&mut self, frame: u64, len: u64) -> Result<Frame, Fault> {
        let unexpected = |reason| Err(Fault::connection(Code::FRAME_UNEXPECTED, reason));
        match frame {
            kind::DATA if self.stage != Stage::Content => {
                unexpected("DATA before the header or after the trailers")
            }
            kind::DATA => {
                if let Some(left) = &mut self.left {
                    *left = left.checked_sub(len).ok_or(Fault::malformed(
                        "the content is longer than content-length",
                    ))?;
                }
                match len {
                    0 => self.idle.add(0)?,
                    _ => self.idle.progress(),
                }
                Ok(Frame::Data(len))
            }
            kind::HEADERS if self.stage == Stage::End => unexpected("HEADERS after the trailers"),
            kind::HEADERS if self.tunnel => unexpected("HEADERS inside a CONNECT tunnel"),
            kind::HEADERS if len > self.max_block => Err(Fault::TooLarge),
            kind::HEADERS => Ok(Frame::Block(len)),
            kind::PUSH_PROMISE if self.role == Role::Client => {
                // RFC 9114 §7.2.5: we never sent MAX_PUSH_ID.
                Err(Fault::connection(
                    Code::ID_ERROR,
                    "a push that was not allowed",
                ))
            }
            kind::SETTINGS
            | kind::GOAWAY
            | kind::CANCEL_PUSH
            | kind::MAX_PUSH_ID
            | kind::PRIORITY_UPDATE
            | kind::PRIORITY_UPDATE_PUSH
            | kind::CREDIT
            | kind::PUSH_PROMISE => unexpected("a control frame on a request stream"),
            _ if kind::is_reserved(frame) => unexpected("a frame type of HTTP/2"),
            _ => {
                self.idle.add(len)?;
                Ok(Frame::Skip(len))
            }
        }
    }

    /// The block, once its last byte is there. Always a copy of its own, however it arrived: header values
    /// are slices of it, and must not keep a whole batch of received packets alive for as long as a tunnel
    /// lasts.
    fn collect(&mut self, part: &Bytes, left: u64) -> Option<Bytes> {
        if left == 0 && self.block.is_empty() {
            return Some(Bytes::copy_from_slice(part));
        }
        self.block.extend_from_slice(part);
        (left == 0).then(|| std::mem::take(&mut self.block).freeze())
    }

    /// Bytes that are kept between two chunks.
    #[cfg(test)]
    pub(crate) fn kept(&self) -> usize {
        self.block.len()
    }

    fn section(&mut self, block: Bytes) -> Event {
        match self.stage {
            Stage::Head => Event::Head(block),
            _ => {
                self.stage = Stage::End;
                Event::Trailers(block)
            }
        }
    }
}

fn take(input: &mut Bytes, at_most: u64) -> Bytes {
    let len = (input.len() as u64).min(at_most);
    input.split_to(len as usize)
}
