//! Holds: chat.

pub(crate) mod create;
