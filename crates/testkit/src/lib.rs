//! Holds: the real server inside a test: real router, real store, real gateway; only the model server is simulated.
//!
//! A dev-dependency and nothing else. It fails loudly: a test harness that recovers hides what it is there to show.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test ends where something unexpected happens")]

mod account;
pub mod audit;
mod beside;
mod call;
mod database;
mod left;
mod models;
pub mod money;
mod parts;
mod paying;
mod served;
mod server;
mod world;

pub use account::Account;
pub use batchin_sim as sim;
pub use batchin_sim::chain;
pub use batchin_upstream::Kind;
pub use call::{Call, Reply, streamed};
pub use database::{Backend, Cluster, Database};
pub use left::left_after;
pub use parts::worker_parts;
pub use server::{RETENTION, ServerBuilder, TestServer};
pub use world::TestClock;

/// Decimal dollars as money: `usd("1.00")`.
pub fn usd(dollars: &str) -> batchin_domain::Amount {
    let (whole, fraction) = dollars.split_once('.').unwrap_or((dollars, ""));
    let cents = format!("{whole}{fraction:0<2}");
    let (cents, rest) = cents.split_at(whole.len() + 2);
    batchin_domain::Amount::parse_cents(&format!("{cents}.{rest}0")).expect("dollars")
}

/// Runs each body on SQLite and on PostgreSQL, each time with a database of its own.
#[macro_export]
macro_rules! both {
    ($(async fn $name:ident($backend:ident) $body:block)+) => {$(
        mod $name {
            use super::*;
            async fn body($backend: $crate::Backend) $body
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn sqlite() {
                body($crate::Backend::Sqlite).await;
            }
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn postgres() {
                body($crate::Backend::Postgres).await;
            }
        }
    )+};
}
