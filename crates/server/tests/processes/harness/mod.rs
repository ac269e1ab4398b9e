//! Holds: what the tests have in common: a database, a simulated model server, server processes and clients.

mod account;
mod database;
mod ledger;
mod load;
mod node;
mod settings;
mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::{
    account::{Account, chat, nanos, text_of},
    database::Backend,
    ledger::Ledger,
    load::{Load, books_balance},
    node::{Address, Node},
    settings::{CENT, Settings, TOKEN},
    world::World,
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

/// Runs each body on SQLite and on PostgreSQL.
macro_rules! on_both {
    ($(async fn $name:ident($backend:ident) $body:block)+) => {$(
        mod $name {
            use super::*;
            async fn body($backend: Backend) $body
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                body(Backend::Sqlite).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                body(Backend::Postgres).await;
            }
        }
    )+};
}
pub(crate) use on_both;
