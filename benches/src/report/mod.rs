//! What a run found, for people.

pub(crate) mod markdown;
