//! Holds: money in.

pub(crate) mod history;
