//! Extended CONNECT's protocol.

use std::borrow::Cow;
use std::fmt;

use crate::Error;

/// What an extended CONNECT turns its stream into: the `:protocol` pseudo-header (RFC 8441 §4, RFC 9220).
///
/// A request has it among its extensions:
///
/// ```
/// use http::{Method, Request};
/// use weft_h3::Protocol;
///
/// let request = Request::builder()
///     .method(Method::CONNECT)
///     .uri("https://chat.default:80/socket")
///     .extension(Protocol::WEBSOCKET)
///     .body(())?;
/// assert_eq!(request.extensions().get(), Some(&Protocol::WEBSOCKET));
/// # Ok::<_, http::Error>(())
/// ```
///
/// The URI's authority is the origin that is asked, never a target to be dialled. A server answers a protocol
/// that it does not know with 501 (RFC 9220 §3); after a 2xx answer both directions carry bytes of the
/// protocol, as those of a tunnel.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Protocol(Cow<'static, str>);

impl Protocol {
    /// WebSocket (RFC 9220).
    pub const WEBSOCKET: Self = Self(Cow::Borrowed("websocket"));
    /// UDP packets to one target (RFC 9298).
    pub const CONNECT_UDP: Self = Self(Cow::Borrowed("connect-udp"));

    /// A protocol by its name in the registry of HTTP upgrade tokens.
    ///
    /// # Errors
    /// [`Error::Unsendable`] for a name with characters other than a token's and `/`.
    pub fn new(name: &str) -> Result<Self, Error> {
        // RFC 9110 §7.8: a token, perhaps with a version.
        let is_name = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~/".contains(&b);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(Error::Unsendable {
                rule: "a protocol's name is a token",
            });
        }
        Ok(match name {
            "websocket" => Self::WEBSOCKET,
            "connect-udp" => Self::CONNECT_UDP,
            _ => Self(Cow::Owned(name.to_owned())),
        })
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the protocol may give a meaning to HTTP datagrams, as far as we know it.
    pub(crate) fn may_have_datagrams(&self) -> bool {
        *self != Self::WEBSOCKET
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
