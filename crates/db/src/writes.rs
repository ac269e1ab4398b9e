//! Holds: whether the database takes what is written to it, and why not.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use metrics::{counter, gauge};
use tracing::{info, warn};

use crate::{DbError, Outage};

/// What became of the latest writes.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    failing: AtomicBool,
    /// std mutex: held to copy a value, and only where writes fail.
    why: Mutex<Option<Outage>>,
}

impl Writes {
    /// Why writes fail, if they do.
    pub(crate) fn outage(&self) -> Option<Outage> {
        if self.failing.load(Ordering::Acquire) { *self.lock() } else { None }
    }

    /// Looks at what a statement or a beginning brought.
    pub(crate) fn seen<T>(&self, done: Result<T, DbError>) -> Result<T, DbError> {
        if let Err(cause) = &done {
            self.failed(cause);
        }
        done
    }

    /// Looks at what a commit brought: one that is durable shows that writes work.
    pub(crate) fn committed(&self, done: &Result<(), DbError>) {
        match done {
            Ok(()) if self.failing.load(Ordering::Relaxed) => {
                self.failing.store(false, Ordering::Release);
                if self.lock().take().is_some() {
                    info!("the database takes writes again");
                    gauge!("batchin_database_writes_failing").set(0.0);
                }
            }
            Ok(()) => {}
            Err(cause) => self.failed(cause),
        }
    }

    fn failed(&self, cause: &DbError) {
        let Some(why) = cause.outage() else { return };
        counter!("batchin_database_write_failures_total", "reason" => why.name()).increment(1);
        let before = self.lock().replace(why);
        self.failing.store(true, Ordering::Release);
        // Said once for each change; each failure is told where it is handled.
        if before != Some(why) {
            gauge!("batchin_database_writes_failing").set(1.0);
            warn!(
                reason = why.name(),
                error = cause as &dyn std::error::Error,
                "the database takes no writes: {}",
                why.words()
            );
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Outage>> {
        self.why.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
