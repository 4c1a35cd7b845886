//! What a client asked, and what content may follow in the answer to that.

use http::{Method, StatusCode};

use crate::core::message::Content;

/// What the client asked, as far as the response's framing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    Head,
    Connect,
    Other,
}

impl From<&Method> for Asked {
    fn from(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Other,
        }
    }
}

/// How much content follows a final response header.
pub(crate) fn response_content(asked: Asked, status: StatusCode, length: Option<u64>) -> Content {
    match (asked, length) {
        // RFC 9110 §9.3.6: content-length has no meaning here.
        (Asked::Connect, _) if status.is_success() => Content::Tunnel,
        // RFC 9110 §6.4.1: these never have content, whatever content-length says.
        (Asked::Head, _) => Content::Exactly(0),
        _ if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) => {
            Content::Exactly(0)
        }
        (_, Some(length)) => Content::Exactly(length),
        (_, None) => Content::Open,
    }
}
