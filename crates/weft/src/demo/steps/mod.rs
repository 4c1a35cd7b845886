//! The steps of the demo, in the order in which they are shown. Each `run` observes and gives its findings.

pub(super) mod balance;
pub(super) mod control;
pub(super) mod control_down;
pub(super) mod impostor;
pub(super) mod join;
pub(super) mod latency;
pub(super) mod reject;
pub(super) mod request;
pub(super) mod rotate;
pub(super) mod tcp;
pub(super) mod timeout;
