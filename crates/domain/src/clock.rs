//! Holds: what the pure code asks of the world, as traits.
//!
//! The system clock and the random source are each implemented once, in `server`; tests pass their own.

use uuid::Uuid;

use crate::Timestamp;

/// Wall-clock time.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// Fresh ids and secrets.
pub trait IdSource: Send + Sync {
    /// A UUID that sorts by creation time (version 7).
    fn uuid(&self) -> Uuid;
    /// 256 random bits from the operating system.
    fn secret(&self) -> [u8; 32];
}
