//! Holds: the real clock and the real randomness. Nothing else in the project reads either.

use batchin_domain::{Clock, IdSource, Timestamp};
use rand::TryRngCore as _;
use uuid::Uuid;

/// The machine's clock and the operating system's randomness.
#[derive(Clone, Copy, Debug, Default)]
pub struct World;

impl Clock for World {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the clock")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
            .after(batchin_faults::clock_ahead())
    }
}

impl IdSource for World {
    #[expect(clippy::disallowed_methods, reason = "the one place that makes ids")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    #[expect(clippy::expect_used, reason = "without randomness there are no keys, and no way to go on")]
    fn secret(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes).expect("the operating system has randomness");
        bytes
    }
}
