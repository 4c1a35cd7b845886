//! Byte streams: TCP between nodes, over loopback, and in place of Unix sockets.
//!
//! `pipe` is one direction of a stream with what is under way, `stream` the two ends that processes hold,
//! `listen` who accepts and how one connects.

mod listen;
mod pipe;
mod stream;

pub(crate) use listen::{Backlog, Place, connect, connect_unix, listen};
pub(crate) use pipe::{Pipe, acked, arrive, resend};
