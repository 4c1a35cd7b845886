//! CONNECT-UDP (RFC 9298): UDP packets to one target, through a server.

mod target;
mod template;
mod tunnel;

pub use target::{UdpHost, UdpTarget};
pub use template::UdpTemplate;
pub use tunnel::{UdpAnswer, UdpReceiver, UdpSender};

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, TRANSFER_ENCODING};

/// Why a URI template or a target is not valid: a sentence for whoever wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the {what} of CONNECT-UDP is not valid: {rule}")]
pub struct InvalidUdp {
    what: &'static str,
    rule: &'static str,
}

#[cfg(test)]
impl InvalidUdp {
    pub(crate) fn rule(self) -> &'static str {
        self.rule
    }
}

/// RFC 9297 §3.2: messages whose stream carries capsules have no content, and so none of these fields.
fn describes_content(headers: &HeaderMap) -> bool {
    [CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING]
        .iter()
        .any(|name| headers.contains_key(name))
}

#[cfg(test)]
mod tests;
