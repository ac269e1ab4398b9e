//! Holds: pictures that were made.

pub(crate) mod content;
