//! What sidecars are sent, and how.

mod feed;
mod pace;
mod session;
mod state;

pub(crate) use feed::Feed;
pub(crate) use session::{Ending, Inlet, Messages, Outlet, Session};
