//! Holds: what is remembered of requests: what they consumed, and the answers that may be asked for again.

pub(crate) mod idempotency;
pub(crate) mod record;
pub(crate) mod usage;
