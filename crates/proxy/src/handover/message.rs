//! What the two processes say to each other: JSON, one message a packet. Unknown fields are passed over, unknown
//! messages too, and both name the protocols that they speak: two versions of weft meet here by design.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use weft_env::{Channel, Message as Packet};
use weft_transport::Tag;

use std::io;
use std::os::fd::{AsFd, OwnedFd};

/// The protocols that this program speaks.
pub(super) const SPOKEN: Protocols = Protocols {
    oldest: 1,
    newest: 1,
};

/// A range of protocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Protocols {
    pub(super) oldest: u32,
    pub(super) newest: u32,
}

impl Protocols {
    /// The newest that both speak.
    pub(super) fn common(self, other: Self) -> Option<u32> {
        let newest = self.newest.min(other.newest);
        (newest >= self.oldest.max(other.oldest)).then_some(newest)
    }
}

/// One message. Which side says what when: see [`super`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(crate) enum Message {
    /// A new process wants to take over.
    Hello(Hello),
    /// What it gets; as many [`Message::Socket`] follow as this says.
    Offer(Offer),
    /// A socket; it comes along.
    Socket(Socket),
    /// The new process could serve now.
    Ready,
    /// It is to.
    Yours,
    /// It does.
    Taken,
    /// The new process cannot.
    Failed { reason: String },
    /// The running process does not want to, or goes on by itself.
    Refused { reason: String },
    /// `weft upgrade` asks for a new process.
    Upgrade(Hello),
    /// It has taken over.
    Upgraded(Upgraded),
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(super) protocols: Protocols,
    pub(super) version: String,
    pub(super) pid: u32,
    /// The state directories of all sidecars that the new process is to hold.
    #[serde(default)]
    pub(super) holds: Vec<PathBuf>,
}

/// Who gives, and what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Offer {
    pub(super) protocol: u32,
    pub(super) version: String,
    pub(super) pid: u32,
    /// The address that the mesh socket was asked for.
    pub(super) mesh: SocketAddr,
    /// The processes whose packets are to be passed on, the giving one last.
    pub(super) earlier: Vec<Generation>,
    /// How many sockets follow.
    pub(super) sockets: usize,
}

/// A process that still has connections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Generation {
    pub(super) tag: u16,
    pub(super) pid: u32,
    pub(super) version: String,
}

impl Generation {
    pub(super) fn tag(&self) -> Tag {
        Tag::from_number(self.tag)
    }
}

/// Which socket it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub(crate) enum Socket {
    /// The lock of the state directory.
    Lock,
    /// The UDP socket of the mesh.
    Mesh,
    /// The TCP listener beside it.
    MeshTcp,
    /// Where packets of a generation go; in the order of the offer.
    Packets,
    /// The socket on which the next upgrade asks.
    Desk,
    /// A listener.
    Door(super::doors::Key),
    /// Of a later version.
    #[serde(other)]
    Unknown,
}

/// An upgrade that has been done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgraded {
    /// Process id of the old process, which finishes its streams.
    pub from_pid: u32,
    /// Version of its program.
    pub from_version: String,
    /// Process id of the new process.
    pub to_pid: u32,
    /// Version of its program.
    pub to_version: String,
}

/// Says something.
pub(super) async fn say(
    channel: &Channel,
    message: &Message,
    fd: Option<OwnedFd>,
) -> io::Result<()> {
    let json = serde_json::to_vec(message).expect("numbers and names are plain JSON");
    channel.send(&json, fd.as_ref().map(AsFd::as_fd)).await
}

/// Understands a packet.
pub(super) fn understand(packet: Packet) -> io::Result<(Message, Option<OwnedFd>)> {
    let message = serde_json::from_slice(&packet.bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    Ok((message, packet.fd))
}

/// What is said next; `None` when the other side is gone.
pub(super) async fn hear(channel: &Channel) -> io::Result<Option<(Message, Option<OwnedFd>)>> {
    channel.recv().await?.map(understand).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_versions_speak_the_newest_protocol_that_both_know() {
        let span = |oldest, newest| Protocols { oldest, newest };
        for (one, other, common) in [
            (span(1, 1), span(1, 1), Some(1)),
            (span(1, 1), span(1, 9), Some(1)),
            (span(2, 4), span(1, 3), Some(3)),
            (span(1, 1), span(2, 3), None),
            (span(5, 6), span(1, 4), None),
        ] {
            assert_eq!(one.common(other), common, "{one:?} {other:?}");
            assert_eq!(other.common(one), common);
        }
    }

    #[test]
    fn what_a_later_version_adds_is_passed_over() {
        let hello = r#"{"type":"hello","protocols":{"oldest":1,"newest":7},"version":"9","pid":3,"mood":"good"}"#;
        assert!(matches!(
            serde_json::from_str(hello).unwrap(),
            Message::Hello(Hello { pid: 3, .. })
        ));
        assert_eq!(
            serde_json::from_str::<Message>(r#"{"type":"song"}"#).unwrap(),
            Message::Unknown
        );
        let socket = r#"{"type":"socket","what":"vsock","cid":3}"#;
        assert_eq!(
            serde_json::from_str::<Message>(socket).unwrap(),
            Message::Socket(Socket::Unknown)
        );
        let door = Message::Socket(Socket::Door(super::super::doors::Key {
            role: super::super::doors::Role::Outbound,
            asked: "127.0.0.1:0".to_owned(),
        }));
        let text = serde_json::to_string(&door).unwrap();
        assert_eq!(serde_json::from_str::<Message>(&text).unwrap(), door);
    }
}
