//! weft-h3 against raw QUIC streams, against itself, and against the `h3` crate, over loopback.
//!
//! Each defect that was found in the `h3` crate (0.0.8) has a test that it cannot happen here:
//!
//! | defect | test |
//! |---|---|
//! | CONNECT with `:scheme` and `:path`, sent or accepted | `client_rules::connect_carries_…`, `server_rules::malformed_requests_…` |
//! | trailers asked for after a part of DATA: panic | `server_rules::trailers_after_part_of_the_content_…` |
//! | truncated DATA, end in a later packet: a clean end, then a panic | `connection_rules::a_truncated_frame_with_a_late_end_…` |
//! | handler dropped before its response: whole connection lost | `streams::a_dropped_or_panicking_handler_…`, `interop::their_client_survives_…` |
//! | client cancels in the middle of a send: whole connection lost | `streams::a_client_that_cancels_…` |
//! | stop while a read is pending: panic | `streams::stopping_while_a_read_is_pending_…` |
//! | stream dropped at a frame boundary: a clean end | `streams::a_dropped_or_panicking_handler_…` (`/half`) |
//! | HEADERS and unknown frames buffered without limit | `server_rules::a_header_frame_without_end_…`, `core::message_tests::unknown_frames_are_never_kept` |
//! | GOAWAY names a stream that was processed | `shutdown::a_server_ends_in_two_steps_…` |
//! | `accept` never ends after a shutdown | `shutdown::a_server_ends_in_two_steps_…` |
//! | duplicate and misordered pseudo-headers, no `:path`, `connection`, `te`, content-length accepted | `server_rules::*`, `client_rules::*` |

#![allow(clippy::disallowed_methods, reason = "tests run on the real system")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod client_rules;
mod common;
mod connect_udp;
mod connection_rules;
mod datagrams;
mod extended_connect;
mod foreign;
mod interop;
mod server_rules;
mod shutdown;
mod soak;
mod streams;
