//! Holds: what the tests have in common: a database, a simulated model server, server processes and clients.

mod account;
mod bucket;
mod disk;
mod ledger;
mod load;
mod node;
mod settings;
mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use batchin_testkit::{Backend, Cluster, both as on_both};

pub use self::{
    account::{Account, chat, nanos, text_of},
    bucket::{Bucket, Maker, Trouble},
    disk::{Disk, DiskFault},
    ledger::Ledger,
    load::{ANSWER, Load, books_balance, charged_once, each_task_once, streamed, whole},
    node::{Address, CLOCK_AHEAD, Environment, Node},
    settings::{CENT, CHAIN_ID, CONFIRMATIONS, Settings, TOKEN, USDC},
    world::{Ran, World},
};

/// A condition that takes longer has failed: far more than any takes on a busy machine with two cores.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(25);

/// Waits until the look finds something.
pub async fn until<T>(what: &str, look: impl AsyncFnMut() -> Option<T>) -> T {
    until_within(PATIENCE, what, look).await
}

/// Waits at most `patience` until the look finds something.
pub async fn until_within<T>(patience: Duration, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {patience:?}: {what}");
        sleep(LOOK).await;
    }
}
