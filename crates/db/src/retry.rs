//! Holds: whether and how a verb is run again.

use std::{future::Future, time::Duration};

use tokio::time::Instant;

use crate::DbError;

/// For how long a verb is run again when the database was busy or away, so that a client's request survives a failover
/// that is quick, and is answered in time when it is not.
pub(crate) const RERUN_FOR: Duration = Duration::from_secs(5);
/// First pause before a verb is run again; doubles each time.
pub(crate) const RERUN_PAUSE: Duration = Duration::from_millis(10);

/// Whether a verb may be run again when nothing was heard of its commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rerun {
    /// A second run finds what the first did, or does the same.
    Harmless,
    /// Only when the first was surely rolled back.
    IfRolledBack,
}

/// Runs a verb, and runs it again while it fails in passing.
pub async fn retried<T, W>(rerun: Rerun, verb: impl Fn() -> W) -> Result<T, DbError>
where
    W: Future<Output = Result<T, DbError>>,
{
    let (began, mut pause) = (Instant::now(), RERUN_PAUSE);
    loop {
        match verb().await {
            Err(DbError::Unsure(cause)) if rerun == Rerun::IfRolledBack => return Err(DbError::Unsure(cause)),
            Err(cause) if cause.is_passing() && began.elapsed() + pause < RERUN_FOR => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            done => return done,
        }
    }
}
