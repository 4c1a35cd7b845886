//! What goes over the local socket, in JSON. The server and [`AdminClient`](crate::AdminClient) share these.
//!
//! Times are Unix time, with the unit in the name. Readers skip fields they do not know.

mod authority;
mod delegate;
mod edge;
mod resource;
mod revocation;
mod rotation;
mod status;
mod token;

pub use authority::*;
pub use delegate::*;
pub use edge::*;
pub use resource::*;
pub use revocation::*;
pub use rotation::*;
pub use status::*;
pub use token::*;
