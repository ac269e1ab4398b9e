//! Holds: credit that operators give and take back, and what they did.

pub(crate) mod change;
pub(crate) mod log;
