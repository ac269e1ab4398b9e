//! Holds: chains as operators see them.

pub(crate) mod list;
