//! Framing: a big-endian `u32` length, then that many bytes of JSON.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Largest frame, in bytes of JSON. A snapshot of 5,000 services fits several times.
pub const MAX_FRAME: usize = 32 * 1024 * 1024;

/// Why a frame could not be written or read. The stream is of no use afterwards.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer announced, or we were asked to send, more than [`MAX_FRAME`] bytes.
    #[error("a message of {0} bytes is over the limit of {MAX_FRAME}")]
    TooLarge(usize),
    /// The bytes are not the JSON of the expected message.
    #[error("a message is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// One message as a frame.
///
/// # Errors
/// [`FrameError::TooLarge`] if its JSON is over [`MAX_FRAME`] bytes.
pub fn encode<M: Serialize>(message: &M) -> Result<Bytes, FrameError> {
    let mut out = BytesMut::with_capacity(512);
    out.put_u32(0);
    let mut writer = out.writer();
    serde_json::to_writer(&mut writer, message)?;
    let mut out = writer.into_inner();
    let len = out.len() - 4;
    if len > MAX_FRAME {
        return Err(FrameError::TooLarge(len));
    }
    let prefix = u32::try_from(len).expect("MAX_FRAME fits in 32 bits");
    out[..4].copy_from_slice(&prefix.to_be_bytes());
    Ok(out.freeze())
}

/// Collects bytes of a stream and gives back whole messages. Holds at most one frame of
/// [`MAX_FRAME`] plus what one `push` brought.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: BytesMut,
}

impl FrameReader {
    /// An empty reader.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds bytes as they came from the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message, or `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`FrameError`] if the frame is too large or not a message; the stream must then be dropped.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = usize::try_from(u32::from_be_bytes(*prefix)).expect("usize has 32 bits or more");
        if len > MAX_FRAME {
            return Err(FrameError::TooLarge(len));
        }
        if self.buffer.len() < 4 + len {
            return Ok(None);
        }
        self.buffer.advance(4);
        let body = self.buffer.split_to(len);
        Ok(Some(serde_json::from_slice(&body)?))
    }

    /// Whether bytes of an unfinished frame are waiting: an end of stream now is a truncation.
    #[must_use]
    pub fn is_mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Ack, SidecarMessage};
    use proptest::prelude::*;

    #[test]
    fn a_message_split_anywhere_is_read_back() {
        let message = SidecarMessage::Ack(Ack {
            revision: 7,
            in_force_unix_ms: 1_700_000_000_000,
            took_us: 250,
            unsaved: None,
        });
        let bytes = encode(&message).unwrap();
        for cut in 0..bytes.len() {
            let mut reader = FrameReader::new();
            reader.push(&bytes[..cut]);
            assert!(
                reader.next_message::<SidecarMessage>().unwrap().is_none(),
                "cut {cut}"
            );
            reader.push(&bytes[cut..]);
            assert_eq!(
                reader.next_message::<SidecarMessage>().unwrap(),
                Some(message.clone())
            );
            assert!(!reader.is_mid_frame());
        }
    }

    #[test]
    fn an_oversized_length_is_refused_before_it_is_buffered() {
        let mut reader = FrameReader::new();
        reader.push(&u32::MAX.to_be_bytes());
        assert!(matches!(
            reader.next_message::<SidecarMessage>(),
            Err(FrameError::TooLarge(_))
        ));
    }

    #[test]
    fn an_unknown_message_type_and_unknown_fields_are_tolerated() {
        let mut reader = FrameReader::new();
        let later = br#"{"type":"from_the_future","x":1}"#;
        reader.push(&u32::try_from(later.len()).unwrap().to_be_bytes());
        reader.push(later);
        assert_eq!(
            reader.next_message::<SidecarMessage>().unwrap(),
            Some(SidecarMessage::Unknown)
        );
        let ack = br#"{"type":"ack","revision":1,"in_force_unix_ms":2,"took_us":3,"new":true}"#;
        reader.push(&u32::try_from(ack.len()).unwrap().to_be_bytes());
        reader.push(ack);
        assert!(matches!(
            reader.next_message::<SidecarMessage>().unwrap(),
            Some(SidecarMessage::Ack(_))
        ));
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..512)) {
            let mut reader = FrameReader::new();
            reader.push(&data);
            for _ in 0..64 {
                match reader.next_message::<SidecarMessage>() {
                    Ok(Some(_)) => {}
                    Ok(None) | Err(_) => break,
                }
            }
        }
    }
}
