//! What a run found, for people.

pub(crate) mod lossy;
pub(crate) mod markdown;
