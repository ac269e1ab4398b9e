//! Holds: a clock that a test can put forward, and real randomness.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use batchin_domain::{Clock, IdSource, Timestamp};
use rand::TryRngCore as _;
use uuid::Uuid;

/// The machine's time, put forward by as much as the test says.
#[derive(Debug, Default)]
pub struct TestClock {
    ahead_micros: AtomicI64,
}

impl TestClock {
    /// Puts it forward.
    pub fn advance(&self, by: Duration) {
        self.ahead_micros.fetch_add(i64::try_from(by.as_micros()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for TestClock {
    #[expect(clippy::disallowed_methods, reason = "the test's own source of time")]
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let micros = i64::try_from(since.as_micros()).unwrap();
        Timestamp::from_micros(micros + self.ahead_micros.load(Ordering::SeqCst))
    }
}

/// Real ids and secrets.
#[derive(Debug, Default)]
pub(crate) struct RealIds;

impl IdSource for RealIds {
    #[expect(clippy::disallowed_methods, reason = "the test's own source of ids")]
    fn uuid(&self) -> Uuid {
        Uuid::now_v7()
    }

    fn secret(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut bytes).unwrap();
        bytes
    }
}
