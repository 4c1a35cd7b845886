//! HTTP/2's error codes and HTTP/3's (RFC 9114 appendix A.4): callers know one set.

use h2::Reason;
use weft_h3::{Code, Error};

use crate::StreamError;

/// What says to an HTTP/2 peer what `code` says to an HTTP/3 peer.
pub(super) fn reason(code: Code) -> Reason {
    match code {
        Code::NO_ERROR => Reason::NO_ERROR,
        Code::INTERNAL_ERROR => Reason::INTERNAL_ERROR,
        Code::EXCESSIVE_LOAD => Reason::ENHANCE_YOUR_CALM,
        Code::REQUEST_REJECTED => Reason::REFUSED_STREAM,
        Code::REQUEST_CANCELLED => Reason::CANCEL,
        Code::CONNECT_ERROR => Reason::CONNECT_ERROR,
        Code::VERSION_FALLBACK => Reason::HTTP_1_1_REQUIRED,
        _ => Reason::PROTOCOL_ERROR,
    }
}

/// The other way round.
pub(super) fn code(reason: Reason) -> Code {
    match reason {
        Reason::NO_ERROR => Code::NO_ERROR,
        Reason::INTERNAL_ERROR => Code::INTERNAL_ERROR,
        Reason::ENHANCE_YOUR_CALM => Code::EXCESSIVE_LOAD,
        Reason::REFUSED_STREAM => Code::REQUEST_REJECTED,
        Reason::CANCEL | Reason::STREAM_CLOSED => Code::REQUEST_CANCELLED,
        Reason::CONNECT_ERROR => Code::CONNECT_ERROR,
        Reason::HTTP_1_1_REQUIRED => Code::VERSION_FALLBACK,
        Reason::PROTOCOL_ERROR => Code::MESSAGE_ERROR,
        _ => Code::GENERAL_PROTOCOL_ERROR,
    }
}

/// What an error of a stream means. `lost` is why the connection ended, if that is known.
pub(super) fn stream_error(error: &h2::Error, lost: Option<String>) -> StreamError {
    match error.reason() {
        Some(reason) if error.is_reset() && error.is_remote() => Error::PeerReset {
            code: code(reason),
            // RFC 9113 §8.7.
            unprocessed: reason == Reason::REFUSED_STREAM,
        }
        .into(),
        Some(reason) if error.is_reset() && error.is_library() => Error::Malformed {
            code: code(reason),
            rule: "it breaks a rule of HTTP/2",
        }
        .into(),
        Some(_) if error.is_reset() => Error::Unreadable {
            rule: "the stream was reset here",
        }
        .into(),
        None if !error.is_io() => {
            unsendable("it breaks a rule of HTTP/2, or comes at the wrong time")
        }
        _ => StreamError::TcpClosed {
            reason: lost.unwrap_or_else(|| error.to_string()),
        },
    }
}

pub(super) fn unsendable(rule: &'static str) -> StreamError {
    Error::Unsendable { rule }.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back_as_they_went() {
        for there in [
            Code::NO_ERROR,
            Code::INTERNAL_ERROR,
            Code::EXCESSIVE_LOAD,
            Code::REQUEST_REJECTED,
            Code::REQUEST_CANCELLED,
            Code::CONNECT_ERROR,
            Code::VERSION_FALLBACK,
            Code::MESSAGE_ERROR,
        ] {
            assert_eq!(code(reason(there)), there);
        }
    }
}
