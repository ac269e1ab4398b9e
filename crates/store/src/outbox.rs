//! Holds: events that customers are told of, and the deliveries that tell them.

pub(crate) mod deliveries;
pub(crate) mod events;
pub(crate) mod log;
pub(crate) mod secrets;
